// Package openapi has the OpenAPI 3.1 description of the HTTP API: each path, its parameters, its
// bodies and its answers.
//
// A test of package api promises that it is complete and true. It fails for a route without a
// description, and for an answer that the description does not allow. It also fails for a described
// answer that the API never gives. Change openapi.json together with the handler.
package openapi

import _ "embed"

//go:embed openapi.json
var document []byte

// Document returns the description as JSON. The caller must not change it.
func Document() []byte { return document }
