package strictjson

import (
	"encoding/json"
	"strconv"
	"strings"

	"revoked"
)

// plain marks the bytes that encoding/json writes into a string unchanged.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x7f; c++ {
		t[c] = !strings.ContainsRune(`"\<>&`, rune(c))
	}
	return t
}()

// AppendString appends s as a JSON string, with the bytes that [json.Marshal] writes. Strings
// without escapes, which are nearly all, allocate nothing.
func AppendString(b []byte, s string) []byte {
	for i := range len(s) {
		if !plain[s[i]] {
			quoted, _ := json.Marshal(s) // a string always has a JSON form
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// AppendTime appends t in Unix seconds, with up to six digits of fraction if it has one.
func AppendTime(b []byte, t revoked.Time) []byte {
	b = strconv.AppendInt(b, t.Unix(), 10)
	us := int64(t) - t.Unix()*1e6
	if us == 0 {
		return b
	}
	b = append(b, '.')
	for scale := int64(100_000); us > 0; scale /= 10 {
		b = append(b, byte('0'+us/scale))
		us %= scale
	}
	return b
}
