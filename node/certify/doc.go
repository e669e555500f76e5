// Package certify gives nodes certificates of the cluster's CA: the first one for a join token, and
// later ones for the certificate that they have.
//
// A member signs if it has the CA's key (cluster_ca_key). It signs for a name only after the log
// holds that the token is used for this name and this key. It renews only for a current member,
// whose admission has the key of both its certificate and its request. It signs no first
// certificate for the name of a member.
//
// Dangerous: whoever reads the CA's key can make a certificate of any node.
package certify
