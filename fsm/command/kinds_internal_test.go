package command

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"revoked"
)

// Every operation that is audited has a kind that rows can encode. A row without one would damage
// the state of every member.
func TestDescribe_EveryOperation_HasAKind(t *testing.T) {
	fields := (&Op{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range fields.Len() {
		op := &Op{}
		m := op.ProtoReflect()
		f := fields.Get(i)
		m.Set(f, protoreflect.ValueOfMessage(m.NewField(f).Message()))
		if !IsAudited(op) {
			continue
		}
		switch k := op.Kind.(type) { // sets the fields that Admit requires
		case *Op_Revoke:
			k.Revoke.Digest = make([]byte, len(revoked.Digest{}))
		case *Op_Note:
			k.Note.Kind = string(revoked.AuditRestore)
		}
		if e, ok := Describe(op); !ok || !revoked.IsAuditKind(e.Kind) {
			t.Errorf("%s: got kind %q, want one of the kinds", f.Name(), e.Kind)
		}
	}
}
