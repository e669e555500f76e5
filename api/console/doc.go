// Package console serves the pages of /ui, for people who operate a cluster.
//
// A client can see and do on a page only what it may see and do at /v1. Each page and each action
// is an API call, inside this process, by the client that has signed in. So the API's rules for
// roles, its limits and its audit log apply, and this package does not repeat them.
//
// A session is kept in the memory of one node and belongs to one version of one client: any change
// of the client ends it. Reading works without JavaScript. No page loads anything from elsewhere.
//
// Tokens and secrets arrive only in the bodies of forms. They are dangerous in a URL, a log or a
// page. So no handler writes them there, with one exception: the answer that creates a secret shows
// it.
//
// The pages are templates, files named .qtpl, which are compiled to Go. With package html/template,
// the linker would keep every exported method of the program, which adds 7 MB. A test checks that
// each value in a template is where escaping for HTML makes it harmless.
package console
