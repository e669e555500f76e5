// Package hostile has the programs of attackers, for tests only: single HTTP/2 frames, and gossip
// messages under a stolen key. Callers bound the number of what they send.
//
// Dangerous: never point it at a node that is not your own.
package hostile
