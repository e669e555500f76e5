package roster

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"revoked"
	"revoked/node/nodepb"
)

func TestMembersOf_Message_KeepsAllFields(t *testing.T) {
	var message nodepb.Member
	fields := message.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		value := map[protoreflect.Kind]any{
			protoreflect.StringKind: "x", protoreflect.BoolKind: true,
			protoreflect.Uint64Kind: uint64(i + 1), protoreflect.Int64Kind: int64(time.Second),
		}[fields.Get(i).Kind()]
		message.ProtoReflect().Set(fields.Get(i), protoreflect.ValueOf(value))
	}
	got := membersOf([]*nodepb.Member{&message, {LastContact: -1}})
	v := reflect.ValueOf(got[0])
	if v.NumField() != fields.Len() {
		t.Errorf("got %d fields, want %d as in the message", v.NumField(), fields.Len())
	}
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s: got the zero value, want the message's", v.Type().Field(i).Name)
		}
	}
	if got[1].LastContact != -1 {
		t.Errorf("last contact of a node without a report: got %v, want -1", got[1].LastContact)
	}
}

// Version 0.2 sent the members as JSON in field 3 of MembersResponse.
const jsonMembersField = 3

func TestMembersResponse_FromOldLeader_IsEmpty(t *testing.T) {
	b := protowire.AppendTag(nil, jsonMembersField, protowire.BytesType)
	b = protowire.AppendBytes(b, []byte(`[{"node_id":"node1","last_contact_ms":-1}]`))
	var resp nodepb.MembersResponse
	if err := proto.Unmarshal(b, &resp); err != nil || len(resp.Members) != 0 || resp.Code != 0 {
		t.Errorf("got %v, %v, want no members and no error", &resp, err)
	}
}

func TestMembersResponse_AtOldNode_IsUndecodable(t *testing.T) {
	b, err := proto.Marshal(&nodepb.MembersResponse{Members: []*nodepb.Member{{NodeId: "node1"}}})
	if err != nil {
		t.Fatal(err)
	}
	var old []byte // the old node's field
	for len(b) > 0 {
		num, _, n := protowire.ConsumeField(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		if num == jsonMembersField {
			old = b[:n]
		}
		b = b[n:]
	}
	var members []map[string]any
	if err := json.Unmarshal(old, &members); err == nil {
		t.Errorf("got members %v, want an error: the old node then uses its own view", members)
	}
}

func TestCanApply_MemberTooOld_ReturnsError(t *testing.T) {
	view := func(id string, hello *nodepb.Hello) peerView {
		return peerView{server: raft.Server{ID: raft.ServerID(id)}, hello: hello}
	}
	self, old := view("node1/a", nil), view("node2/b", &nodepb.Hello{Version: "1.0"}) // sends no command version
	second := view("node2/b", &nodepb.Hello{Version: "2.0", Commands: 2})
	third := view("node3/c", &nodepb.Hello{Version: "3.0", Commands: 3})
	for _, tt := range []struct {
		name    string
		version uint32
		inLog   uint32
		members []peerView
		want    string // part of the error; empty: no error
	}{
		{"single node", 3, 1, []peerView{self}, ""},
		{"all support it", 2, 1, []peerView{self, second, third}, ""},
		{"one does not", 3, 2, []peerView{self, second, third},
			"node2 runs version 2.0, which does not support this operation"},
		{"one of the first version", 2, 1, []peerView{self, old, third}, "node2 runs version 1.0"},
		{"one without a report", 2, 1, []peerView{self, view("node2/b", nil), third}, "node2 has not reported"},
		// A member that could not apply version 2 would have stopped. Its report must not prevent a
		// removal.
		{"one reports an old version falsely", 2, 2, []peerView{self, old, view("node3/c", nil)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := canApply(tt.version, tt.members, self.server.ID, tt.inLog, false)
			switch {
			case tt.want == "" && err == nil:
			case tt.want != "" && errors.Is(err, revoked.ErrUnprocessable) && strings.Contains(err.Error(), tt.want):
			default:
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	members := []peerView{self, view("node2/b", nil), third} // node2 reports within a moment
	if err := canApply(2, members, self.server.ID, 1, true); !errors.Is(err, revoked.ErrNoLeader) {
		t.Errorf("new leader: got %v, want %v", err, revoked.ErrNoLeader)
	}
}
