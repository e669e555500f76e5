// Package pki manages the certificates of the cluster port. It has the CA that issues them, the
// files that a node loads and reloads, and the node names in the certificates.
//
// Its TLS configurations guarantee that both sides of a connection have a certificate of the
// cluster's CA that names a node. They also guarantee that the dialing side has reached the
// intended node. Each handshake uses the newest files.
//
// It never compares host names and keeps no session tickets: a ticket would outlive a removed CA.
package pki
