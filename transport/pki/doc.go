// Package pki holds the certificates of the cluster port. It has the CA that issues them, the set
// that a node loads and reloads, and the node names in them.
//
// It promises that both sides of a connection hold a certificate of the cluster's CA that names a
// node. The dialing side has reached the node that it meant. Each handshake uses the newest set of
// files.
//
// It never compares host names and keeps no session tickets: a ticket would outlive a removed CA.
package pki
