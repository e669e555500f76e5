package jwt

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestParseObject_OnlyStrictJSON_IsAccepted(t *testing.T) {
	wide := func(last string) string {
		var b strings.Builder
		for i := range 40 {
			fmt.Fprintf(&b, `"m%d":%d,`, i, i)
		}
		return "{" + b.String() + `"` + last + `":1}`
	}
	nested := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}" }
	for _, tt := range []struct {
		name, in string
		want     bool
	}{
		{"empty object", `{}`, true},
		{"every type", "{\"a\":[1,-0.5e+3,\"x\",true,false,null,{}] , \"b\" :\t{\r\n\"a\":0}}", true},
		{"surrogate pair", `{"a":"\ud83d\ude00"}`, true},
		{"escapes", `{"\u0061":"\"\\\/\u00e4"}`, true},
		{"many members", wide("x"), true},
		{"deepest", nested(31), true},
		{"empty", ``, false},
		{"array", `[]`, false},
		{"string", `"a"`, false},
		{"byte order mark", "\ufeff{}", false},
		{"trailing bytes", `{}x`, false},
		{"two objects", `{}{}`, false},
		{"not closed", `{"a":1`, false},
		{"wrong end", `{"a":1]`, false},
		{"trailing comma", `{"a":1,}`, false},
		{"trailing comma in an array", `{"a":[1,]}`, false},
		{"no comma", `{"a":1 "b":2}`, false},
		{"no colon", `{"a" 1}`, false},
		{"no value", `{"a":}`, false},
		{"name without quotes", `{a:1}`, false},
		{"single quotes", `{'a':1}`, false},
		{"comment", `{/**/}`, false},
		{"repeated name", `{"a":1,"a":2}`, false},
		{"repeated name, escaped", `{"a":1,"\u0061":2}`, false},
		{"repeated name inside", `{"b":{"a":1,"a":2}}`, false},
		{"repeated name in an array", `{"b":[{"a":1,"a":2}]}`, false},
		{"repeated name among many", wide("m7"), false},
		{"repeated late name among many", wide("m39"), false},
		{"lone high surrogate", `{"a":"\ud83d"}`, false},
		{"lone high surrogate before a letter", `{"a":"\ud83dx"}`, false},
		{"lone high surrogate before an escape", `{"a":"\ud83d\u0041"}`, false},
		{"lone low surrogate", `{"a":"\ude00"}`, false},
		{"surrogates in the wrong order", `{"a":"\ude00\ud83d"}`, false},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", false},
		{"surrogate in UTF-8", "{\"a\":\"\xed\xa0\x80\"}", false},
		{"overlong UTF-8", "{\"a\":\"\xc0\x80\"}", false},
		{"control character", "{\"a\":\"\x01\"}", false},
		{"newline in a string", "{\"a\":\"\n\"}", false},
		{"escaped zero", `{"a":"\u0000"}`, false},
		{"escaped newline", `{"a":"\n"}`, false},
		{"delete", "{\"a\":\"\x7f\"}", false},
		{"C1 control character", "{\"a\":\"\u0085\"}", false},
		{"control character in a name", `{"\u0001":1}`, false},
		{"unknown escape", `{"a":"\x41"}`, false},
		{"short escape", `{"a":"\u12"}`, false},
		{"signed escape", `{"a":"\u+123"}`, false},
		{"backslash at the end", `{"a":"\`, false},
		{"leading zero", `{"a":01}`, false},
		{"plus", `{"a":+1}`, false},
		{"no digits", `{"a":-}`, false},
		{"no fraction", `{"a":1.}`, false},
		{"no exponent", `{"a":1e}`, false},
		{"hexadecimal", `{"a":0x1}`, false},
		{"not a number", `{"a":NaN}`, false},
		{"capital literal", `{"a":True}`, false},
		{"zero byte", "{\x00}", false},
		{"too deep", nested(32), false},
		{"far too deep", nested(5000), false},
	} {
		_, err := parseObject(tt.in)
		if got := err == nil; got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
		if tt.want && !json.Valid([]byte(tt.in)) {
			t.Errorf("%s: got accepted, but encoding/json rejects it", tt.name)
		}
	}
}

func TestWholeSeconds_EachFormat_IsExact(t *testing.T) {
	for _, tt := range []struct {
		literal  string
		down, up int64
		ok       bool
	}{
		{"0", 0, 0, true},
		{"-0", 0, 0, true},
		{"-0.0e5", 0, 0, true},
		{"0.1", 0, 1, true},
		{"0.0000000000000000000000000000000001", 0, 1, true},
		{"1790000000", 1790000000, 1790000000, true},
		{"1790000000.0", 1790000000, 1790000000, true},
		{"1790000000.999999999999999999", 1790000000, 1790000001, true},
		{"1.79e9", 1790000000, 1790000000, true},
		{"1.79E+9", 1790000000, 1790000000, true},
		{"17900000005e-1", 1790000000, 1790000001, true},
		{"1e-9", 0, 1, true},
		{"1e-999", 0, 1, true},
		{"0.00000179e15", 1790000000, 1790000000, true},
		{"253402300799", 253402300799, 253402300799, true},
		{"2534023007990e-1", 253402300799, 253402300799, true},
		{"253402300798.5", 253402300798, 253402300799, true},
		{"253402300799.5", 0, 0, false},
		{"253402300800", 0, 0, false},
		{"1e12", 0, 0, false},
		{"1e999", 0, 0, false},
		{"1e99999999999999999999", 0, 0, false},
		{"-1", 0, 0, false},
		{"-0.5", 0, 0, false},
		{"-1e-9", 0, 0, false},
		{"18446744073709551616", 0, 0, false},
		{"1." + strings.Repeat("0", 63), 0, 0, false},
	} {
		down, ok := wholeSeconds(tt.literal, false)
		up, okUp := wholeSeconds(tt.literal, true)
		if ok != tt.ok || okUp != tt.ok || down != tt.down || up != tt.up {
			t.Errorf("%s: got %d to %d, %v, want %d to %d, %v", tt.literal, down, up, ok, tt.down, tt.up, tt.ok)
		}
	}
}

// FuzzParseObject checks that every accepted text is valid for encoding/json as well, with the same
// names and strings.
func FuzzParseObject(f *testing.F) {
	for _, s := range []string{
		`{"iss":"https://as.example","aud":["a","b"],"exp":1.79e9,"cnf":{"x5t#S256":"a"}}`,
		`{"a":"\ud83d\ude00","b":[true,false,null,{}]}`, `{"a":1,"\u0061":2}`, "{\"a\":\"\u0085\"}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parseObject(s)
		if err != nil {
			return
		}
		var want map[string]any
		if err := json.Unmarshal([]byte(s), &want); err != nil {
			if strings.Contains(err.Error(), "cannot unmarshal number") {
				return // a number beyond float64
			}
			t.Fatalf("encoding/json: %v", err)
		}
		if len(want) != len(v.members) {
			t.Fatalf("got %d members, want %d", len(v.members), len(want))
		}
		for _, m := range v.members {
			other, ok := want[m.name]
			if !ok {
				t.Fatalf("got name %q, want one of %v", m.name, want)
			}
			if str, ok := other.(string); ok != (m.value.kind == text) || ok && str != m.value.text {
				t.Fatalf("member %q: got %q, want %q", m.name, m.value.text, str)
			}
		}
	})
}
