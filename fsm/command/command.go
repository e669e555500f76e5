package command

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"revoked"
)

// Limits of a command. They limit the size of a log entry, and so the memory that Decode allocates.
const (
	format = 0x01 // first byte of every command
	// MaxBytes is the size of the largest command that Encode returns and Decode accepts.
	MaxBytes = 16 << 20
	// MaxOps is the largest number of operations in one Batch.
	MaxOps = 65536
)

// typeTick is the type byte of Tick.
const typeTick = 3

// A Command is the message of one log entry. GetStamp returns the time of the leader's clock when
// the leader proposed the entry. Apply has no other clock. The stamp of the state never decreases.
type Command interface {
	proto.Message
	GetStamp() int64
}

// types lists the commands by type byte. A number must keep its meaning forever, because logs and
// backups contain it.
var types = [...]Command{
	1: (*Batch)(nil), 2: (*Epoch)(nil), typeTick: (*Tick)(nil), 4: (*Bootstrap)(nil),
	5: (*Expire)(nil), 6: (*Compact)(nil),
}

// typeOf returns the type byte of c, or 0 for a message that is not a command. It compares types,
// not names, so a message of another package never matches.
func typeOf(c Command) byte {
	for t, v := range types {
		if v != nil && v.ProtoReflect().Type() == c.ProtoReflect().Type() {
			return byte(t)
		}
	}
	return 0
}

// Encode returns the bytes of c. The same message always gives the same bytes. It returns an error
// that wraps revoked.ErrInvalid if c is not a command or is larger than MaxBytes.
func Encode(c Command) ([]byte, error) {
	t := typeOf(c)
	if t == 0 {
		return nil, fmt.Errorf("%w: encode command: %s is not a command", revoked.ErrInvalid, nameOf(c))
	}
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{format, t}, c)
	if err != nil {
		return nil, fmt.Errorf("%w: encode %s: %w", revoked.ErrInvalid, nameOf(c), err)
	}
	return b, checkSize(b)
}

// Decode is the inverse of Encode. It refuses more than MaxBytes, an unknown format or type, and an
// unknown field at any depth, because a command must not be applied in part. The error wraps
// revoked.ErrInvalid. Decode never panics and does not retain b.
func Decode(b []byte) (Command, error) {
	if err := checkSize(b); err != nil {
		return nil, err
	}
	if b[0] != format {
		return nil, fmt.Errorf("%w: command format: got %#02x, want %#02x", revoked.ErrInvalid, b[0], format)
	}
	if b[1] == 0 || int(b[1]) >= len(types) {
		return nil, fmt.Errorf("%w: command type: got %d, want 1 to %d", revoked.ErrInvalid, b[1], len(types)-1)
	}
	c := types[b[1]].ProtoReflect().New().Interface().(Command)
	if err := proto.Unmarshal(b[2:], c); err != nil {
		return nil, fmt.Errorf("%w: decode %s: %w", revoked.ErrInvalid, nameOf(c), err)
	}
	if batch, ok := c.(*Batch); ok {
		if n := len(batch.Ops); n > MaxOps {
			return nil, fmt.Errorf("%w: batch size: got %d operations, want at most %d", revoked.ErrInvalid, n, MaxOps)
		}
		if r := batch.Rules; r != 0 && r != RegisterRules && r != JTIRules {
			return nil, fmt.Errorf("%w: rules: got %d, want 0, %d or %d", revoked.ErrInvalid, r, RegisterRules, JTIRules)
		}
		for _, op := range batch.Ops {
			if op.Kind == nil {
				return nil, errNoKind
			}
		}
	}
	return c, checkCommand(c)
}

// checkCommand is CheckKnown without reflection for the operations that are frequent: reflection
// takes longer than their decoding.
func checkCommand(c Command) error {
	batch, ok := c.(*Batch)
	if !ok || len(batch.unknownFields) != 0 {
		return CheckKnown(c)
	}
	for _, op := range batch.Ops {
		if op.isKnown() {
			continue
		}
		if err := CheckKnown(op); err != nil {
			return err
		}
	}
	return nil
}

// isKnown reports whether op is a registration or a revocation, of a JWT or not, without an unknown
// field at any depth.
func (op *Op) isKnown() bool {
	if len(op.unknownFields) != 0 || op.Actor != nil && len(op.Actor.unknownFields) != 0 {
		return false
	}
	if use := op.GetActor().GetAssertion(); use != nil && len(use.unknownFields) != 0 {
		return false
	}
	if o := op.Origin; o != nil && (len(o.unknownFields) != 0 || o.Caller != nil) {
		return false
	}
	if m := op.GetRevoke(); m != nil {
		return len(m.unknownFields) == 0
	}
	if m := op.GetRevokeJwt(); m != nil {
		return len(m.unknownFields) == 0 &&
			!slices.ContainsFunc(m.Earlier, func(was *Membership) bool { return len(was.unknownFields) != 0 })
	}
	m := op.GetRegister()
	return m != nil && len(m.unknownFields) == 0 &&
		!slices.ContainsFunc(m.Tokens, func(t *TokenSpec) bool { return len(t.unknownFields) != 0 })
}

// MarksOf returns the marks in the bytes of a command, or nil. It decodes only ticks. The log store
// calls it for each entry, so the type byte decides before anything is decoded.
func MarksOf(b []byte) []*Mark {
	if len(b) < 2 || b[1] != typeTick {
		return nil
	}
	if t, err := Decode(b); err == nil {
		return t.(*Tick).Marks
	}
	return nil
}

// errNoKind is returned for an operation without a kind, or of a kind that a later version added.
var errNoKind = fmt.Errorf("%w: operation: kind is missing or unknown", revoked.ErrInvalid)

// checkSize checks the size of a command, before decoding and after encoding.
func checkSize(b []byte) error {
	if n := len(b); n < 2 || n > MaxBytes {
		return fmt.Errorf("%w: command size: got %d bytes, want 2 to %d", revoked.ErrInvalid, n, MaxBytes)
	}
	return nil
}

// nameOf returns the name of the type of a message, for errors. It contains no values.
func nameOf(m proto.Message) string { return string(m.ProtoReflect().Descriptor().Name()) }

// CheckKnown returns an error that wraps revoked.ErrInvalid if m has an unknown field at any depth.
func CheckKnown(m proto.Message) error { return checkKnown(m.ProtoReflect()) }

// checkKnown visits every message that m contains. An unknown field comes from a newer program, and
// skipping it would apply a command that was not proposed.
func checkKnown(m protoreflect.Message) (err error) {
	if len(m.GetUnknown()) != 0 {
		return fmt.Errorf("%w: %s: unknown field", revoked.ErrInvalid, m.Descriptor().Name())
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Message() == nil:
		case field.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = checkKnown(v.List().Get(i).Message())
			}
		default:
			err = checkKnown(v.Message())
		}
		return err == nil
	})
	return err
}
