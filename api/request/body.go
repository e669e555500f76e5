package request

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"revoked/api/registration"
	"revoked/api/strictjson"
)

// Limits of members that several bodies have, in bytes.
const (
	MaxBody   = 64 << 10 // size of a body below /v1, except those of registrations and issuers
	MaxReason = 256
	MaxID     = registration.MaxID
	MaxURI    = registration.MaxURI
)

// TypeJSON is the content type of most bodies.
const TypeJSON = "application/json"

// Accepted content types of a body, and of a merge patch (RFC 7396 section 4). They must not be
// changed.
var (
	TypesJSON  = []string{TypeJSON}
	TypesPatch = []string{"application/merge-patch+json", TypeJSON}
)

// MediaType returns the content type of the request. It fails unless the type is one of types, in
// UTF-8 and without a content encoding.
func MediaType(r *http.Request, types ...string) (string, error) {
	if len(r.Header["Content-Encoding"]) > 0 {
		return "", unsupportedType("Content-Encoding is not supported")
	}
	t, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if cs, ok := params["charset"]; err == nil && (!ok || strings.EqualFold(cs, "utf-8")) {
		for _, want := range types {
			if t == want {
				return t, nil
			}
		}
	}
	return "", unsupportedType("Content-Type must be " + strings.Join(types, " or "))
}

func unsupportedType(detail string) error {
	return &Failure{Status: http.StatusUnsupportedMediaType, Title: "unsupported media type",
		Outcome: "unsupported_media_type", Detail: detail}
}

// ReadBody returns the whole body, which may have at most limit bytes.
func ReadBody(r *http.Request, limit int64) ([]byte, error) {
	tooLong := &Failure{Status: http.StatusRequestEntityTooLarge, Title: "body too large", Outcome: "too_large",
		Detail: fmt.Sprintf("the body is longer than %d bytes", limit)}
	if r.ContentLength > limit {
		return nil, tooLong
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	var maxBytes *http.MaxBytesError
	switch {
	case errors.As(err, &maxBytes), int64(len(b)) > limit:
		return nil, tooLong
	case err != nil:
		return nil, &Failure{Status: http.StatusBadRequest, Title: titleMalformed, Outcome: "invalid",
			Detail: "the body could not be read"}
	}
	return b, nil
}

// A Field is a member that a JSON body may have, and how to read its value.
type Field struct {
	Name string
	Read func(j *strictjson.Reader) error
}

// A ReadFunc reads a value of a JSON body.
type ReadFunc[T any] func(j *strictjson.Reader) (T, error)

// Into returns a field whose value goes to dst. The value null leaves dst unchanged.
func Into[T any](name string, dst *T, read ReadFunc[T]) Field {
	return Field{name, func(j *strictjson.Reader) (err error) {
		if !j.Null() {
			*dst, err = read(j)
		}
		return err
	}}
}

// Name reads a string of 1 to limit bytes without control characters.
func Name(limit int) ReadFunc[string] {
	return func(j *strictjson.Reader) (string, error) { return j.Name(limit) }
}

// Names reads a list of at most elements strings, each of 1 to limit bytes without control
// characters.
func Names(elements, limit int) ReadFunc[[]string] {
	return func(j *strictjson.Reader) ([]string, error) { return j.Names(elements, limit) }
}

// ReadReason reads a reason, which may be empty.
func ReadReason(j *strictjson.Reader) (string, error) { return j.Line(MaxReason) }

// Decode reads the request's body, a JSON object whose members must be among fields.
func (r *Request) Decode(types []string, fields ...Field) error {
	return r.DecodeLimited(types, MaxBody, fields...)
}

// DecodeLimited is Decode for a body of at most limit bytes.
func (r *Request) DecodeLimited(types []string, limit int64, fields ...Field) error {
	if _, err := MediaType(r.Request(), types...); err != nil {
		return err
	}
	b, err := ReadBody(r.Request(), limit)
	if err != nil {
		return err
	}
	return DecodeObject(b, fields)
}

// DecodeOptional is Decode for a JSON body that may be missing.
func (r *Request) DecodeOptional(fields ...Field) error {
	if r.Request().ContentLength == 0 {
		return nil
	}
	if _, err := MediaType(r.Request(), TypeJSON); err != nil {
		return err
	}
	b, err := ReadBody(r.Request(), MaxBody)
	if err != nil || len(bytes.TrimPrefix(b, []byte("\ufeff"))) == 0 {
		return err
	}
	return DecodeObject(b, fields)
}

// DecodeObject reads b, a JSON object whose members must be among fields. Then it clears b, which
// may hold a secret.
func DecodeObject(b []byte, fields []Field) error {
	defer clear(b)
	var j strictjson.Reader
	defer j.Wipe()
	j.Reset(b)
	list := make([]string, len(fields))
	for i, f := range fields {
		list[i] = f.Name
	}
	if err := j.Object(list, func(k int) error { return fields[k].Read(&j) }); err != nil {
		return err
	}
	return j.End()
}

// ReadDuration reads a duration of Go's syntax, such as "2s". It accepts any sign and size: the
// record that receives the duration checks its bounds.
func ReadDuration(j *strictjson.Reader) (time.Duration, error) {
	text, err := j.Name(MaxID)
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, j.Fail(`want a duration, such as "2s" or "1h30m"`)
	}
	return d, nil
}

// A Patched is a field of a merge patch (RFC 7396). The value null leaves Value as it was before
// the body was read: the zero value, or a default.
type Patched[T any] struct {
	Set   bool // the body has the field
	Value T
}

// Field returns the field of a body that sets p.
func (p *Patched[T]) Field(name string, read ReadFunc[T]) Field {
	return Field{name, func(j *strictjson.Reader) (err error) {
		p.Set = true
		if !j.Null() {
			p.Value, err = read(j)
		}
		return err
	}}
}

// Apply sets dst if the body has the field.
func (p *Patched[T]) Apply(dst *T) {
	if p.Set {
		*dst = p.Value
	}
}
