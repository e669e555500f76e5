// Package strictjson reads JSON request bodies strictly and appends JSON strings and times.
//
// A [Reader] matches field names exactly and rejects unknown names, repeated names, invalid UTF-8
// and lone surrogates. encoding/json offers only the check of unknown names. Errors wrap
// [revoked.ErrInvalid] and name the field and the byte offset. They never quote the input, which
// may contain a token or a secret.
//
// The reader is written by hand because it decodes a registration in 1.6 us and jsontext
// (github.com/go-json-experiment/json v1.27.2) in 1.9 us, with less exact errors. Bulk registration
// spends about 9 us a line in total (BenchmarkBulk).
//
// Only the Append functions are safe for concurrent use.
package strictjson
