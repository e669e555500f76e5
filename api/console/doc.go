// Package console serves the pages of /ui, for people who operate a cluster.
//
// It promises that a page shows, and an action does, only what the same client may do at /v1: each
// of them is a call of the API by the client that has signed in, inside this process. So the rules
// of roles, the limits of admission and the audit are those of the API, and are not repeated here.
//
// A session lives in the memory of one node and belongs to one version of one client: any change of
// the client ends it. Reading works without JavaScript. No page loads anything from elsewhere.
//
// Tokens and secrets arrive in bodies of forms only. They are dangerous in an address, a log or a
// page: no handler puts one there, except a new secret in the answer that makes it.
package console
