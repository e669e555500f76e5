// Package certify gives nodes certificates of the cluster's CA: the first for a join token, and
// each later one for the current certificate.
//
// A member signs if it has the CA's key (cluster_ca_key). It signs for a name only after the log
// records that the token is used for this name and key. It renews only for a current member, whose
// admission must have the key of the certificate and of the request. It never signs a first
// certificate for the name of a member.
//
// Dangerous: whoever reads the CA's key can make a certificate of any node.
package certify
