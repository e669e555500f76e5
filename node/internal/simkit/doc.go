// Package simkit simulates the network and the disk of whole nodes that run in virtual time, in a
// bubble of testing/synctest. Only tests of package node import it.
//
// Its functions never block while they hold a lock that another goroutine needs: that would stop
// the bubble's clock.
package simkit
