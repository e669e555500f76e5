package strictjson_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"revoked"
	"revoked/api/strictjson"
)

func read(text string) *strictjson.Reader {
	r := new(strictjson.Reader)
	r.Reset([]byte(text))
	return r
}

func TestTime_UnixSeconds_AreParsed(t *testing.T) {
	for in, want := range map[string]revoked.Time{
		"1790000000": 1790000000_000000, "1790000000.5": 1790000000_500000, "1790000000.1234567": 1790000000_123456,
		"0.000001": 1, "1.79e9": 1790000000_000000, "1790000000.0": 1790000000_000000, "253402300799": 253402300799_000000,
		"0": 0, "-1": 0, "-0.5": 0, "1e300": 0, "253402300800": 0, "01": 0, "1.": 0, ".5": 0, "1e": 0, "+1": 0, "NaN": 0,
		"\"1\"": 0, "0.0000001": 0, "99999999999999999999999999": 0, "1790000000000": 0,
	} {
		r := read(in)
		got, err := r.Time()
		if err == nil {
			err = r.End()
		}
		if (err == nil) != (want != 0) || err == nil && got != want {
			t.Errorf("%s: got %d, error %v, want %d", in, got, err, want)
		}
		if err != nil && !errors.Is(err, revoked.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", in, err)
		}
		if want != 0 && !strings.ContainsAny(in, "e7") {
			if again, err := read(string(strictjson.AppendTime(nil, want))).Time(); again != want {
				t.Errorf("%s appended and read: got %d, error %v, want %d", in, again, err, want)
			}
		}
	}
}

// An unknown, repeated or differently spelled name is an error.
func TestObject_UnexpectedName_IsRejected(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":1,"b":2}`:             "",
		` { "b" : 2 } `:             "",
		`{}`:                        "",
		`{"a":1,"a":1}`:             "invalid request: a: repeated (byte 10)",
		`{"a":1,"\u0061":1}`:        "invalid request: a: repeated (byte 15)",
		`{"A":1}`:                   "invalid request: unknown field (byte 4)",
		`{"other":1}`:               "invalid request: unknown field other (byte 8)",
		`{"a":1,}`:                  "invalid request: want a string (byte 7)",
		`{"a" 1}`:                   "invalid request: a: want a colon (byte 5)",
		`{"a":1 "b":2}`:             "invalid request: want a comma or the end of the object (byte 7)",
		`{"a":1} {}`:                "invalid request: unexpected text after the JSON value (byte 8)",
		`{"a":"1"}`:                 "invalid request: a: want a number (byte 5)",
		`{"a":9}`:                   "invalid request: a: want a whole number from 0 to 8 (byte 6)",
		`[]`:                        "invalid request: want an object (byte 0)",
		strings.Repeat(`{"a":`, 17): "invalid request: a: want a number (byte 5)",
	} {
		r := read(in)
		err := r.Object([]string{"a", "b"}, func(int) error { _, err := r.Uint(8); return err })
		if err == nil {
			err = r.End()
		}
		if got := errorText(err); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestNames_Repeated_AreDropped(t *testing.T) {
	got, err := read(`["a","b","a"]`).Names(3, 8)
	if err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q, error %v, want a and b", got, err)
	}
	for _, in := range []string{`["a","b","c","d"]`, `[""]`, `["\u0007"]`, `["123456789"]`, `["\ud800"]`, `"a"`, `["a"`} {
		if got, err := read(in).Names(3, 8); !errors.Is(err, revoked.ErrInvalid) {
			t.Errorf("%s: got %q, error %v, want ErrInvalid", in, got, err)
		}
	}
}

func TestAppendString_AnyText_EqualsEncodingJSON(t *testing.T) {
	for _, s := range []string{"", "plain text", `"`, `\`, "<a&b>", "\x00\n", "\x7f", "ü", "\u2028", "\xff"} {
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(strictjson.AppendString(nil, s)); got != string(want) {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}

func FuzzRaw(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-2.5e3,true,null,"\u00e4\\"],"b":{}}`, `[`, `"\ud83d\ude00"`, "\"\xff\"", `01`, ``,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := read(text)
		_, err := r.Raw(len(text))
		if err == nil {
			err = r.End()
		}
		if err == nil && !json.Valid([]byte(text)) {
			t.Errorf("%q: got no error, want one: encoding/json rejects it", text)
		}
		if err != nil && !errors.Is(err, revoked.ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", text, err)
		}
	})
}

// RFC 8259 section 8.1: a parser may ignore a byte order mark. Editors and PowerShell write one.
func TestReader_ByteOrderMark_IsSkippedOnce(t *testing.T) {
	r := read("\ufefftrue")
	if v, err := r.Bool(); !v || err != nil || r.End() != nil {
		t.Errorf("got %v and %v, want true", v, err)
	}
	for _, bad := range []string{"\ufeff\ufefftrue", " \ufefftrue", "\ufeff"} {
		if _, err := read(bad).Bool(); !errors.Is(err, revoked.ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", bad, err)
		}
	}
}
