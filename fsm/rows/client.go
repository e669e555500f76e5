package rows

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm/command"
)

// AppendClient appends the row of v: a ClientRecord.
func AppendClient(b []byte, v *revoked.Client) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, command.ClientMessage(v))
}

// ParseClient is the inverse of AppendClient.
func ParseClient(id string, row []byte) (*revoked.Client, error) {
	var rec command.ClientRecord
	if err := parseRecord("client "+id, row, &rec); err != nil {
		return nil, err
	}
	if rec.Id != id {
		return nil, fmt.Errorf("client %s: %w", id, ErrRow)
	}
	return rec.Client(), nil
}

// Settings are the settings and the stamp at which their LeaseCeiling ends.
type Settings struct {
	revoked.Settings
	CeilingUntil revoked.Time
}

// At returns the settings as of stamp.
func (s *Settings) At(stamp revoked.Time) revoked.Settings {
	now := s.Settings
	if stamp >= s.CeilingUntil {
		now.LeaseCeiling = 0
	}
	return now
}

// AppendSettings appends the row of s: a SettingsRecord.
func AppendSettings(b []byte, s *Settings) ([]byte, error) {
	m := command.SettingsMessage(s.Settings)
	m.CeilingUntil = int64(s.CeilingUntil)
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, m)
}

// ParseSettings is the inverse of AppendSettings.
func ParseSettings(row []byte) (Settings, error) {
	var rec command.SettingsRecord
	if err := parseRecord("settings", row, &rec); err != nil {
		return Settings{}, err
	}
	return Settings{Settings: rec.Settings(), CeilingUntil: revoked.Time(rec.CeilingUntil)}, nil
}

// parseRecord decodes a row that is a protobuf message. A field of a later version is reported as
// revoked.ErrInvalid, not as damage.
func parseRecord(kind string, row []byte, m proto.Message) error {
	if err := proto.Unmarshal(row, m); err != nil {
		return fmt.Errorf("%s: %w: %w", kind, ErrRow, err)
	}
	if err := command.CheckKnown(m); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	return nil
}

// A Deleted row records that a client was deleted.
type Deleted struct {
	At    revoked.Time
	Index uint64
	Due   revoked.Time
}

func (d *Deleted) code(c *coder) {
	c.version()
	c.time(&d.At)
	c.uvarint(&d.Index)
	c.time(&d.Due)
}
