// Package hostile simulates attackers, for tests only: it sends single HTTP/2 frames, and gossip
// messages encrypted with a stolen key. Callers limit how much they send.
//
// Dangerous: never point it at a node that is not your own.
package hostile
