package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"revoked"
)

//go:generate sh -c "cd .. && protoc --go_out=. --go_opt=module=revoked fsm/command.proto"

// A Type is the second byte of a command: it names the message that follows.
type Type byte

// The types. The numbers are part of the log.
const (
	TypeBatch     Type = 1
	TypeEpoch     Type = 2
	TypeTick      Type = 3
	TypeBootstrap Type = 4
	TypeExpire    Type = 5
	TypeReap      Type = 6
)

// String returns the name used in messages and metrics.
func (t Type) String() string {
	switch t {
	case TypeBatch:
		return "batch"
	case TypeEpoch:
		return "epoch"
	case TypeTick:
		return "tick"
	case TypeBootstrap:
		return "bootstrap"
	case TypeExpire:
		return "expire"
	case TypeReap:
		return "reap"
	}
	return fmt.Sprintf("type %d", byte(t))
}

// CommandVersion is the highest version of operations that this program can apply. Whatever is added to an
// operation, or to the operations, raises it, and is of that version in VersionOf: members tell theirs, and a leader
// proposes nothing that one of them could not apply.
const CommandVersion = 1

// VersionOf returns the lowest CommandVersion of a program that can apply op.
func VersionOf(*Op) uint32 { return 1 }

const (
	commandFormat = 0x01
	// MaxCommandBytes is the largest command that Encode makes and Decode takes.
	MaxCommandBytes = 16 << 20
	// MaxBatchOps is how many operations one Batch holds at most.
	MaxBatchOps = 65536
)

// Encode returns the bytes of a command. The same message always gives the same bytes. It returns an
// error that wraps revoked.ErrInvalid when m is not the message of type t, or is too large.
func Encode(t Type, m proto.Message) ([]byte, error) {
	if want := newMessage(t); want == nil || want.ProtoReflect().Descriptor() != m.ProtoReflect().Descriptor() {
		return nil, fmt.Errorf("%w: no command of %s is a %s", revoked.ErrInvalid, t, m.ProtoReflect().Descriptor().Name())
	}
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{commandFormat, byte(t)}, m)
	if err != nil {
		return nil, fmt.Errorf("%w: encode %s: %w", revoked.ErrInvalid, t, err)
	}
	if len(b) > MaxCommandBytes {
		return nil, fmt.Errorf("%w: a command of %d bytes is larger than %d", revoked.ErrInvalid, len(b), MaxCommandBytes)
	}
	return b, nil
}

// Decode reads what Encode wrote. It refuses an unknown format or type, a field that it does not know
// at any depth, and more than MaxCommandBytes: what it cannot read whole it must not apply in part.
// It never panics, whatever b holds, and keeps nothing of b.
func Decode(b []byte) (Type, proto.Message, error) {
	if len(b) < 2 {
		return 0, nil, fmt.Errorf("%w: a command of %d bytes", revoked.ErrInvalid, len(b))
	}
	if len(b) > MaxCommandBytes {
		return 0, nil, fmt.Errorf("%w: a command of %d bytes is larger than %d", revoked.ErrInvalid, len(b), MaxCommandBytes)
	}
	if b[0] != commandFormat {
		return 0, nil, fmt.Errorf("%w: command format %#02x is unknown", revoked.ErrInvalid, b[0])
	}
	t := Type(b[1])
	m := newMessage(t)
	if m == nil {
		return t, nil, fmt.Errorf("%w: command type %d is unknown", revoked.ErrInvalid, b[1])
	}
	if err := proto.Unmarshal(b[2:], m); err != nil {
		return t, nil, fmt.Errorf("%w: decode %s: %w", revoked.ErrInvalid, t, err)
	}
	if err := checkKnown(m); err != nil {
		return t, nil, err
	}
	return t, m, nil
}

func newMessage(t Type) proto.Message {
	switch t {
	case TypeBatch:
		return new(Batch)
	case TypeEpoch:
		return new(Epoch)
	case TypeTick:
		return new(Tick)
	case TypeBootstrap:
		return new(Bootstrap)
	case TypeExpire:
		return new(Expire)
	case TypeReap:
		return new(Reap)
	}
	return nil
}

// checkKnown returns an error if a field somewhere in m is not of this version. It is written out by
// hand because it runs over every command; a test holds it against the descriptors.
func checkKnown(m proto.Message) error {
	if err := known(m); err != nil {
		return err
	}
	switch m := m.(type) {
	case *Batch:
		if len(m.Ops) > MaxBatchOps {
			return fmt.Errorf("%w: a batch of %d operations", revoked.ErrInvalid, len(m.Ops))
		}
		for _, op := range m.Ops {
			if err := checkOpKnown(op); err != nil {
				return err
			}
		}
	case *Bootstrap:
		if m.Settings != nil {
			if err := known(m.Settings); err != nil {
				return err
			}
		}
		for _, c := range m.Clients {
			if err := checkClientKnown(c); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOpKnown(op *Op) error {
	if err := known(op); err != nil {
		return err
	}
	if op.Actor != nil {
		if err := known(op.Actor); err != nil {
			return err
		}
	}
	switch k := op.Kind.(type) {
	case nil:
		return fmt.Errorf("%w: an operation of no kind", revoked.ErrInvalid)
	case *Op_Register:
		for _, t := range k.Register.GetTokens() {
			if err := known(t); err != nil {
				return err
			}
		}
		return known(k.Register)
	case *Op_Revoke:
		return known(k.Revoke)
	case *Op_DeleteGrant:
		return known(k.DeleteGrant)
	case *Op_MakeCutoff:
		if s := k.MakeCutoff.GetSelector(); s != nil {
			if err := known(s); err != nil {
				return err
			}
		}
		return known(k.MakeCutoff)
	case *Op_PutClient:
		if c := k.PutClient.GetClient(); c != nil {
			if err := checkClientKnown(c); err != nil {
				return err
			}
		}
		return known(k.PutClient)
	case *Op_DeleteClient:
		return known(k.DeleteClient)
	case *Op_PutSettings:
		if s := k.PutSettings.GetSettings(); s != nil {
			if err := known(s); err != nil {
				return err
			}
		}
		return known(k.PutSettings)
	}
	return fmt.Errorf("%w: an operation of unknown kind", revoked.ErrInvalid)
}

func checkClientKnown(c *ClientRecord) error {
	for _, s := range c.Secrets {
		if err := known(s); err != nil {
			return err
		}
	}
	return known(c)
}

func known(m proto.Message) error {
	r := m.ProtoReflect()
	if len(r.GetUnknown()) != 0 {
		return fmt.Errorf("%w: a field of %s is not known to this version", revoked.ErrInvalid, r.Descriptor().Name())
	}
	return nil
}
