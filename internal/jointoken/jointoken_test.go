package jointoken_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"revoked/internal/jointoken"
)

// fixed is a token with known bytes: the derivation of the key must never change.
const fixed = "rjt1.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0-Pw"

func TestToken_Text_IsParsed(t *testing.T) {
	ca := sha256.Sum256([]byte("CA"))
	made := jointoken.New(ca)
	got, err := jointoken.Parse(made.Text())
	if err != nil || got != made || got.CA() != ca || len(made.Text()) != 91 || !jointoken.HasKey(made.Text()) {
		t.Errorf("got %v, same %t, %d characters, want the same token of 91 characters", err, got == made, len(made.Text()))
	}
	if other := jointoken.New(ca); other == made {
		t.Error("two new tokens: got the same, want two")
	}
}

func TestToken_KnownBytes_GiveTheKnownKey(t *testing.T) {
	token, err := jointoken.Parse(fixed)
	if err != nil {
		t.Fatal(err)
	}
	const want = "735e7c7af772a33a6a45a651dd9236bdb3e382bba1c580ea5eb9a4663d960d60"
	if got := hex.EncodeToString(token.PublicKey()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParse_BadText_IsRefused(t *testing.T) {
	const want = "join token: damaged or incomplete (want rjt1. and 86 more characters)"
	for name, text := range map[string]string{
		"empty":           "",
		"older form":      strings.Repeat("A", 43),
		"truncated":       fixed[:len(fixed)-1],
		"longer":          fixed + "AA",
		"not base64url":   fixed[:len(fixed)-1] + "+",
		"padding bits":    fixed[:len(fixed)-1] + "x",
		"line break":      fixed[:20] + "\n" + fixed[20:],
		"another version": "rjt2." + fixed[5:],
	} {
		if _, err := jointoken.Parse(text); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

// A node sends a token of the older form. A damaged token must not pass for such a token.
func TestIsOlder_OtherTexts_AreRejected(t *testing.T) {
	if !jointoken.IsOlder(strings.Repeat("A", 43)) {
		t.Error("older form: got false, want true")
	}
	for _, text := range []string{
		"", fixed, fixed[1:], `"` + fixed + `"`, "rjt2." + fixed[5:], fixed[5:], strings.Repeat("A", 42) + "\n",
		strings.Repeat("A", 42), strings.Repeat("A", 44), " " + strings.Repeat("A", 42),
	} {
		if jointoken.IsOlder(text) {
			t.Errorf("%q: got true, want false", text)
		}
	}
}

// No verb of package fmt shows a secret.
func TestToken_Printed_IsHidden(t *testing.T) {
	token, _ := jointoken.Parse(fixed)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got := fmt.Sprintf(verb, token); got != "join token" {
			t.Errorf("%s: got %q, want join token", verb, got)
		}
	}
}

func TestVerifyJoin_OtherProof_IsRejected(t *testing.T) {
	token, other := jointoken.New([32]byte{1}), jointoken.New([32]byte{1})
	key, proof, binding := token.PublicKey(), token.SignJoin("node4", "i1", []byte("binding")), []byte("binding")
	if !jointoken.VerifyJoin(key, proof, "node4", "i1", binding) {
		t.Fatal("own proof: got false, want true")
	}
	changed := bytes.Clone(proof)
	changed[0] ^= 1
	for name, ok := range map[string]bool{
		"another node":       jointoken.VerifyJoin(key, proof, "node5", "i1", binding),
		"another instance":   jointoken.VerifyJoin(key, proof, "node4", "i2", binding),
		"another connection": jointoken.VerifyJoin(key, proof, "node4", "i1", []byte("another")),
		"no connection":      jointoken.VerifyJoin(key, proof, "node4", "i1", nil),
		"shifted boundary":   jointoken.VerifyJoin(key, proof, "node4i", "1", binding),
		"another token":      jointoken.VerifyJoin(other.PublicKey(), proof, "node4", "i1", binding),
		"changed proof":      jointoken.VerifyJoin(key, changed, "node4", "i1", binding),
		"no proof":           jointoken.VerifyJoin(key, nil, "node4", "i1", binding),
		"no key":             jointoken.VerifyJoin(nil, proof, "node4", "i1", binding),
		"short key":          jointoken.VerifyJoin(key[1:], proof, "node4", "i1", binding),
	} {
		if ok {
			t.Errorf("%s: got accepted, want refused", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(fixed)
	f.Add("rjt1.")
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := jointoken.Parse(text); err == nil && token.Text() != text {
			t.Errorf("%q: got another text", text)
		}
	})
}
