package registration_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"revoked"
	"revoked/api/registration"
)

// Bodies of one stream share equal strings and keep different ones apart.
func TestDecoder_EqualLines_ShareStrings(t *testing.T) {
	var d registration.Decoder
	body := func(client, aud string) []byte {
		return []byte(`{"client_id":"` + client + `","audience":[` + aud + `],"access_token":{"token":"t"}}`)
	}
	var got []revoked.Registration
	for _, x := range [][2]string{{"a", `"x","y"`}, {"a", `"x","y"`}, {"b", `"x"`}, {"b", `"x","z"`}, {"b", ``},
		{"b", `"x","z","w"`}} {
		reg, err := d.Decode(body(x[0], x[1]), 0)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, reg)
	}
	for i, want := range []string{"a x,y", "a x,y", "b x", "b x,z", "b ", "b x,z,w"} {
		if s := got[i].ClientID + " " + strings.Join(got[i].Audience, ","); s != want {
			t.Errorf("body %d: got %s, want %s", i, s, want)
		}
	}
}

// Generated ids of one second begin alike and end differently. The first 32 bits are the time.
func TestDecoder_NoGrantID_BeginsWithTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d registration.Decoder
		seen := map[string]bool{}
		for range 5 {
			for range 100 {
				reg, err := d.Decode([]byte(`{"client_id":"a","access_token":{"token":"t"}}`), 0)
				if err != nil {
					t.Fatal(err)
				}
				b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(reg.GrantID, "g_"))
				if err != nil || len(b) != 16 || !strings.HasPrefix(reg.GrantID, "g_") {
					t.Fatalf("got id %q (%v), want g_ and 16 bytes", reg.GrantID, err)
				}
				if got, want := binary.BigEndian.Uint32(b), time.Now().Unix(); int64(got) != want {
					t.Errorf("got time %d in the id, want %d", got, want)
				}
				if random := string(b[4:]); seen[random] {
					t.Errorf("got the random part of %q twice", reg.GrantID)
				} else {
					seen[random] = true
				}
			}
			time.Sleep(time.Hour)
		}
	})
}

// No part of a raw token stays in the body or in the decoder.
func TestDecoder_RawToken_IsCleared(t *testing.T) {
	var d registration.Decoder
	body := []byte(`{"client_id":"a","access_token":{"token":"SECRET\u002dONE"},"refresh_token":{"token":"SECRET-TWO"}}`)
	reg, err := d.Decode(body, 0)
	if err != nil {
		t.Fatal(err)
	}
	if reg.Tokens[0].Digest != revoked.DigestToken("SECRET-ONE") ||
		reg.Tokens[1].Digest != revoked.DigestToken("SECRET-TWO") {
		t.Error("got other digests, want those of the tokens")
	}
	if bytes.Contains(body, []byte("SECRET-TWO")) {
		t.Error("got a token in memory, want it cleared")
	}
}

func TestDecoder_Errors_QuoteNoInput(t *testing.T) {
	const secret = "s3cr3t-T0ken"
	for _, body := range []string{
		secret, `{"` + secret + `":1}`, `{"client_id":"a","access_token":{"` + secret + `":1}}`,
		`{"client_id":"a","access_token":"` + secret + `"}`,
		`{"access_token":{"digest":"` + secret + `"}}`, `{"access_token":{"token":"` + secret + `\x"}}`,
		`{"access_token":{"token":"` + secret,
		`{"access_token":{"token":"` + secret + `","issued_at":"` + secret + `"}}`, `{} ` + secret,
	} {
		var d registration.Decoder
		_, err := d.Decode([]byte(body), 0)
		if err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: got %v, want an error that does not repeat it", body, err)
		}
	}
}

// FuzzDecodeRegistration checks that an accepted body has the same value for encoding/json.
func FuzzDecodeRegistration(f *testing.F) {
	for _, s := range []string{
		`{"grant_id":"g-81","client_id":"app","subject":"alice","scope":"read write","audience":["rs1"],"access_token":{"token":"x","issued_at":1790000000.5,"expires_at":4102444800,"jti":"j","cnf":{"x5t#S256":"a"}},"refresh_token":{"digest":"LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564"}}`,
		`{"client_id":"\ud83d\ude00\u00e4","access_token":{"token":"\u0000\n"}}`,
		`{"client_id":"a","subject":null,"refresh_token":{"token":"x","cnf":{"a":[1,{"b":[]}]}}}`,
		`{"client_id":"a","access_token":{"token":"x","issued_at":1.79e9}}`,
		"{\"client_id\":\"\xff\",\"access_token\":{\"token\":\"x\"}}", `{}`, `[`, `{"client_id":"a"`, `null`, ``,
		`{"client_id":"a","client_id":"b","access_token":{"token":"x"}}`,
		`{"client_id":"a","access_token":{"token":"\ud800"}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var d registration.Decoder
		reg, err := d.Decode(bytes.Clone(body), 0)
		if err != nil {
			if !errors.Is(err, revoked.ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
			return
		}
		var want struct {
			GrantID  *string  `json:"grant_id"`
			ClientID string   `json:"client_id"`
			Subject  string   `json:"subject"`
			Scope    string   `json:"scope"`
			Audience []string `json:"audience"`
			Access   *struct {
				Token *string `json:"token"`
			} `json:"access_token"`
		}
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatalf("%q was accepted; encoding/json: %v", body, err)
		}
		if want.ClientID != reg.ClientID || want.Subject != reg.Subject || want.Scope != reg.Scope ||
			strings.Join(want.Audience, "\x00") != strings.Join(reg.Audience, "\x00") {
			t.Errorf("%q: got %+v, want %+v", body, reg, want)
		}
		if want.GrantID != nil && *want.GrantID != reg.GrantID || reg.GrantID == "" {
			t.Errorf("%q: got grant_id %q", body, reg.GrantID)
		}
		if want.Access != nil && want.Access.Token != nil && revoked.DigestToken(*want.Access.Token) != reg.Tokens[0].Digest {
			t.Errorf("%q: got another digest", body)
		}
		if n := len(reg.Tokens); n < 1 || n > 2 {
			t.Errorf("got %d tokens", n)
		}
	})
}

// BenchmarkDecodeRegistration measures one line.
func BenchmarkDecodeRegistration(b *testing.B) {
	line := []byte(`{"grant_id":"g-81","client_id":"app","subject":"alice","session":"s-1","username":"alice@example.org","issuer":"https://as.example","scope":"read write","audience":["rs1"],"access_token":{"token":"0123456789012345678901234567890123456789","issued_at":1790000000,"expires_at":4102444800},"refresh_token":{"token":"9876543210987654321098765432109876543210","issued_at":1790000000,"expires_at":4102444800}}`)
	buf := make([]byte, len(line))
	var d registration.Decoder
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		copy(buf, line)
		if _, err := d.Decode(buf, 0); err != nil {
			b.Fatal(err)
		}
	}
}
