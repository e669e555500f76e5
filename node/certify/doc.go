// Package certify issues node certificates of the cluster's CA. A node presents a join token to get
// its first certificate, and its current certificate to get the next one.
//
// A member signs if it has the CA's key (cluster_ca_key). It signs a first certificate only after
// the log records that the join token is used for its name and key. It renews a certificate only
// for a current member. The member's admission must have the key of both the certificate and the
// request. It never signs a first certificate for the name of a member.
//
// Dangerous: anyone who can read the CA's key can issue a certificate for any node.
package certify
