// Package openapi has the OpenAPI 3.1 description of the HTTP API: each path, its parameters, its
// bodies and its answers.
//
// A test of package api checks that the description is complete and correct. The test fails for a
// route without a description, and for an answer that the description does not allow. It also fails
// for a described answer that the API never gives. Change openapi.json together with the handler,
// then run
//
//	go test ./api/openapi -update
//
// The program contains only the compressed file, which is a tenth of the size of openapi.json.
package openapi

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"io"
	"sync"
)

//go:embed openapi.json.gz
var compressed []byte

// Document returns the description as JSON. The caller must not change it. A test reads the whole
// of it, so decompression cannot fail.
var Document = sync.OnceValue(func() []byte {
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		panic(err)
	}
	document, err := io.ReadAll(r)
	if err != nil {
		panic(err)
	}
	return document
})
