package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"revoked"
)

func TestSeconds(t *testing.T) {
	for in, want := range map[string]revoked.Time{
		"1790000000": 1790000000_000000, "1790000000.5": 1790000000_500000, "1790000000.1234567": 1790000000_123456, "0.000001": 1,
		"1.79e9": 1790000000_000000, "1790000000.0": 1790000000_000000, "253402300799": 253402300799_000000,
		"0": 0, "-1": 0, "-0.5": 0, "1e300": 0, "253402300800": 0, "01": 0, "1.": 0, ".5": 0, "1e": 0, "+1": 0, "NaN": 0, "\"1\"": 0, "0.0000001": 0,
		"99999999999999999999999999": 0, "1790000000000": 0,
	} {
		var r jsonReader
		r.reset([]byte(in))
		got, err := r.seconds()
		if err == nil {
			err = r.end()
		}
		if (err == nil) != (want != 0) || err == nil && got != want {
			t.Errorf("%s: got %d %v, want %d", in, got, err, want)
		}
		if err != nil && !errors.Is(err, revoked.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", in, err)
		}
		if want != 0 && !strings.ContainsAny(in, "e7") {
			var back jsonReader
			back.reset(appendSeconds(nil, want))
			if again, err := back.seconds(); again != want {
				t.Errorf("%s written and read: got %d %v, want %d", in, again, err, want)
			}
		}
	}
}

// TestDecoderReusesEqualValues: bodies of one stream share their strings, and are not mixed up.
func TestDecoderReusesEqualValues(t *testing.T) {
	var d registrationDecoder
	body := func(client, aud string) []byte {
		return []byte(`{"client_id":"` + client + `","audience":[` + aud + `],"access_token":{"token":"t"}}`)
	}
	var got []revoked.Registration
	for _, x := range [][2]string{{"a", `"x","y"`}, {"a", `"x","y"`}, {"b", `"x"`}, {"b", `"x","z"`}, {"b", ``}, {"b", `"x","z","w"`}} {
		reg, err := d.decode(body(x[0], x[1]), 0)
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

// TestDecoderForgetsTokens: nothing of a raw token is left in the body or in the decoder.
func TestDecoderForgetsTokens(t *testing.T) {
	var d registrationDecoder
	body := []byte(`{"client_id":"a","access_token":{"token":"SECRET\u002dONE"},"refresh_token":{"token":"SECRET-TWO"}}`)
	reg, err := d.decode(body, 0)
	if err != nil {
		t.Fatal(err)
	}
	if reg.Tokens[0].Digest != revoked.DigestToken("SECRET-ONE") || reg.Tokens[1].Digest != revoked.DigestToken("SECRET-TWO") {
		t.Error("got other digests than those of the tokens")
	}
	d.r.wipe()
	if bytes.Contains(body, []byte("SECRET-TWO")) || bytes.Contains(d.r.scratch[:cap(d.r.scratch)], []byte("SECRET")) {
		t.Error("a token is still in memory")
	}
}

// TestErrorsQuoteNothing: what is wrong is said without the text that is wrong.
func TestErrorsQuoteNothing(t *testing.T) {
	const secret = "s3cr3t-T0ken"
	for _, body := range []string{
		secret, `{"` + secret + `":1}`, `{"client_id":"a","access_token":{"` + secret + `":1}}`, `{"client_id":"a","access_token":"` + secret + `"}`,
		`{"access_token":{"digest":"` + secret + `"}}`, `{"access_token":{"token":"` + secret + `\x"}}`, `{"access_token":{"token":"` + secret,
		`{"access_token":{"token":"` + secret + `","issued_at":"` + secret + `"}}`, `{} ` + secret,
	} {
		var d registrationDecoder
		_, err := d.decode([]byte(body), 0)
		if err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: got %v, want an error that does not repeat it", body, err)
		}
	}
}

func TestLineReader(t *testing.T) {
	long := strings.Repeat("x", 11)
	r := newLineReader(iotest.OneByteReader(strings.NewReader("one\r\n\n"+long+"\n"+strings.Repeat("y", 100)+"\n0123456789\nlast")), 10)
	for i, want := range []struct {
		line    string
		tooLong bool
	}{{"one", false}, {"", false}, {long, true}, {"", true}, {"0123456789", false}, {"last", false}} {
		line, tooLong, err := r.next()
		if err != nil || tooLong != want.tooLong || !tooLong && string(line) != want.line || r.n != i+1 {
			t.Errorf("line %d: got %q %t %v, want %q %t", i+1, line, tooLong, err, want.line, want.tooLong)
		}
	}
	if _, _, err := r.next(); err != io.EOF {
		t.Errorf("got %v, want io.EOF", err)
	}
	broken := newLineReader(io.MultiReader(strings.NewReader("whole\nhal"), iotest.ErrReader(io.ErrUnexpectedEOF)), 10)
	if line, _, err := broken.next(); string(line) != "whole" || err != nil {
		t.Errorf("got %q %v, want the whole line", line, err)
	}
	if line, _, err := broken.next(); line != nil || err != io.ErrUnexpectedEOF {
		t.Errorf("got %q %v, want no line and the error", line, err)
	}
}

// TestSpool: bytes come out as they went in, through memory and file, and no file stays.
func TestSpool(t *testing.T) {
	dir := t.TempDir()
	s := newSpool(dir)
	var want bytes.Buffer
	for i := range 3000 {
		p := bytes.Repeat([]byte{byte(i)}, 1+i%700)
		want.Write(p)
		if _, err := s.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if !s.spilled {
		t.Fatal("nothing went to the file")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("got %v %v, want a file without a name", names, err)
	}
	var got bytes.Buffer
	more := make(chan struct{})
	done := make(chan error)
	first := true
	go func() {
		done <- s.drain(&got, func() error {
			if first {
				first = false
				close(more)
			}
			return nil
		})
	}()
	<-more // all of it was read: the file begins anew
	for i := range 2000 {
		p := bytes.Repeat([]byte{byte(i)}, 1+i%700)
		want.Write(p)
		if _, err := s.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	s.finish()
	if err := <-done; err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("got %d bytes and %v, want the %d that went in", got.Len(), err, want.Len())
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("a finished spool takes more")
	}
}

// TestSpoolOfALostClient: whoever writes is told, and nobody waits.
func TestSpoolOfALostClient(t *testing.T) {
	s := newSpool(t.TempDir())
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("lost")
	if err := s.drain(writerFunc(func([]byte) (int, error) { return 0, lost }), func() error { return nil }); !errors.Is(err, lost) {
		t.Errorf("got %v, want %v", err, lost)
	}
	if _, err := s.Write([]byte("y")); !errors.Is(err, lost) {
		t.Errorf("got %v, want %v", err, lost)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// FuzzDecodeRegistration: whatever is accepted is JSON, and says the same to encoding/json.
func FuzzDecodeRegistration(f *testing.F) {
	for _, s := range []string{
		`{"grant_id":"g-81","client_id":"app","subject":"alice","scope":"read write","audience":["rs1"],"access_token":{"token":"x","issued_at":1790000000.5,"expires_at":4102444800,"jti":"j","cnf":{"x5t#S256":"a"}},"refresh_token":{"digest":"LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564"}}`,
		`{"client_id":"\ud83d\ude00\u00e4","access_token":{"token":"\u0000\n"}}`, `{"client_id":"a","subject":null,"refresh_token":{"token":"x","cnf":{"a":[1,{"b":[]}]}}}`,
		`{"client_id":"a","access_token":{"token":"x","issued_at":1.79e9}}`, "{\"client_id\":\"\xff\",\"access_token\":{\"token\":\"x\"}}", `{}`, `[`, `{"client_id":"a"`, `null`, ``,
		`{"client_id":"a","client_id":"b","access_token":{"token":"x"}}`, `{"client_id":"a","access_token":{"token":"\ud800"}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var d registrationDecoder
		reg, err := d.decode(bytes.Clone(body), 0)
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
		if want.ClientID != reg.ClientID || want.Subject != reg.Subject || want.Scope != reg.Scope || strings.Join(want.Audience, "\x00") != strings.Join(reg.Audience, "\x00") {
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

// FuzzLineReader: lines are those of bytes.Split, but for the length.
func FuzzLineReader(f *testing.F) {
	for _, s := range []string{"", "\n", "a\nb", "a\r\n\r\nb\r", "0123456789abcdef\nx\n", "\r\n\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 14 // with the two of a line end, the smallest buffer of bufio
		r := newLineReader(iotest.HalfReader(bytes.NewReader(in)), limit)
		want := bytes.Split(in, []byte("\n"))
		if len(want[len(want)-1]) == 0 {
			want = want[:len(want)-1]
		}
		for i, w := range want {
			line, tooLong, err := r.next()
			if err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
			w = bytes.TrimSuffix(w, []byte("\r"))
			if tooLong != (len(w) > limit) || !tooLong && !bytes.Equal(line, w) {
				t.Errorf("line %d: got %q %t, want %q", i+1, line, tooLong, w)
			}
		}
		if _, _, err := r.next(); err != io.EOF {
			t.Errorf("got %v, want io.EOF", err)
		}
	})
}

// BenchmarkDecodeRegistration is the cost of one line.
func BenchmarkDecodeRegistration(b *testing.B) {
	line := []byte(`{"grant_id":"g-81","client_id":"app","subject":"alice","session":"s-1","username":"alice@example.org","issuer":"https://as.example","scope":"read write","audience":["rs1"],"access_token":{"token":"0123456789012345678901234567890123456789","issued_at":1790000000,"expires_at":4102444800},"refresh_token":{"token":"9876543210987654321098765432109876543210","issued_at":1790000000,"expires_at":4102444800}}`)
	buf := make([]byte, len(line))
	var d registrationDecoder
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		copy(buf, line)
		if _, err := d.decode(buf, 0); err != nil {
			b.Fatal(err)
		}
	}
}
