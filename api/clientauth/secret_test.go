package clientauth_test

import (
	"errors"
	"strings"
	"testing"

	"revoked"
	"revoked/api/clientauth"
)

func TestCheckSecret_Rules_HoldUnlessImported(t *testing.T) {
	strong := strings.Repeat("s", clientauth.StrongSecret)
	for _, tt := range []struct {
		secret         string
		fresh, imports error
	}{
		{strong, nil, nil}, {clientauth.NewSecret(), nil, nil},
		{strong[1:], revoked.ErrUnprocessable, nil}, {"hunter2", revoked.ErrUnprocessable, nil},
		{" " + strong, revoked.ErrUnprocessable, nil}, {strong + "\t", revoked.ErrInvalid, revoked.ErrInvalid},
		{strong + "\u00a0", revoked.ErrUnprocessable, nil}, {"\ufeff" + strong, revoked.ErrUnprocessable, nil},
		{"", revoked.ErrInvalid, revoked.ErrInvalid}, {strong + "\n", revoked.ErrInvalid, revoked.ErrInvalid},
		{strings.Repeat("s", clientauth.MaxSecret), nil, nil},
		{strings.Repeat("s", clientauth.MaxSecret+1), revoked.ErrInvalid, revoked.ErrInvalid},
		{strong + "\xff", revoked.ErrInvalid, revoked.ErrInvalid},
	} {
		for imported, want := range map[bool]error{false: tt.fresh, true: tt.imports} {
			err := clientauth.CheckSecret(tt.secret, imported)
			if !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%q, imported %t: got %v, want %v", tt.secret, imported, err, want)
			}
			if err != nil && tt.secret != "" && strings.Contains(err.Error(), tt.secret) {
				t.Errorf("%q: got the secret in %v", tt.secret, err)
			}
		}
	}
}
