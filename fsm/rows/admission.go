package rows

import (
	"fmt"

	"revoked"
)

// An Admission is the row with the decision about a node name.
type Admission struct{ revoked.Admission }

// Due returns when Expire must drop the row, or 0 for never.
func (v *Admission) Due() revoked.Time {
	switch v.State {
	case revoked.Admitted:
		return max(v.ExpiresAt, v.KeyUntil)
	case revoked.Withdrawn:
		return max(v.At.Add(revoked.AdmissionMemory), v.KeyUntil)
	}
	return 0
}

func (v *Admission) code(c *coder) {
	if c.decoding {
		v.Node = string(c.key[1:])
	}
	form := byte(1)
	switch {
	case !v.Key.IsZero():
		form = 3
	case v.JoinToken != "":
		form = 2
	}
	c.form(&form, 3)
	state := byte(v.State)
	c.byte(&state)
	c.flag(&v.NonVoter)
	c.time(&v.ExpiresAt, &v.At)
	c.string(&v.By, &v.Reason)
	c.uvarint(&v.Index)
	if form >= 2 {
		c.string(&v.JoinToken)
	}
	if form >= 3 {
		c.digest(&v.Key)
		c.time(&v.KeyUntil)
	}
	if c.decoding {
		v.State = revoked.AdmissionState(state)
		if v.State < revoked.Admitted || v.State > revoked.Barred || form >= 2 && v.JoinToken == "" ||
			form >= 3 && v.Key.IsZero() {
			c.fail()
		}
	}
}

// ParseAdmission decodes the row with the decision about a node name.
func ParseAdmission(key, row []byte) (*revoked.Admission, error) {
	var v Admission
	if err := Parse(key, row, &v); err != nil {
		return nil, fmt.Errorf("admission of %q: %w", key[1:], err)
	}
	return &v.Admission, nil
}

// A JoinToken is the row of a join token.
type JoinToken struct{ revoked.JoinToken }

// Due returns when Expire must drop the row: revoked.AdmissionMemory after the end of the token. A
// used token with a key ends only when it expires or is deleted, because its deletion withdraws the
// admission.
func (v *JoinToken) Due() revoked.Time {
	end := v.ExpiresAt
	switch {
	case v.DeletedAt != 0:
		end = v.DeletedAt
	case v.UsedBy != "" && !v.HasKey:
		end = v.UsedAt
	}
	return end.Add(revoked.AdmissionMemory)
}

func (v *JoinToken) code(c *coder) {
	if c.decoding {
		v.ID = string(c.key[1:])
	}
	form := byte(1)
	if v.HasKey {
		form = 2
	}
	c.form(&form, 2)
	v.HasKey = form == 2
	c.digest(&v.Hash)
	c.string(&v.Node, &v.By, &v.UsedBy)
	c.flag(&v.NonVoter)
	c.time(&v.CreatedAt, &v.ExpiresAt, &v.UsedAt, &v.DeletedAt)
	c.uvarint(&v.Index)
}

// ParseJoinToken decodes the row of a join token.
func ParseJoinToken(key, row []byte) (*revoked.JoinToken, error) {
	var v JoinToken
	if err := Parse(key, row, &v); err != nil {
		return nil, fmt.Errorf("join token %q: %w", key[1:], err)
	}
	return &v.JoinToken, nil
}
