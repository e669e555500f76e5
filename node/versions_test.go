package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"revoked"
)

// A leader proposes nothing that some member cannot apply: that member would have to end.
func TestWhatEveryMemberCanApply(t *testing.T) {
	view := func(id string, who *Hello) peerView {
		return peerView{server: raft.Server{ID: raft.ServerID(id)}, who: who}
	}
	self, old := view("node1/a", nil), view("node2/b", &Hello{Version: "1.0"}) // from before versions were told
	second, third := view("node2/b", &Hello{Version: "2.0", Commands: 2}), view("node3/c", &Hello{Version: "3.0", Commands: 3})
	for _, tt := range []struct {
		name    string
		need    uint32
		members []peerView
		says    string
	}{
		{"alone", 3, []peerView{self}, ""},
		{"all know it", 2, []peerView{self, second, third}, ""},
		{"one does not", 3, []peerView{self, second, third}, "node2 runs version 2.0, which does not know this operation"},
		{"one of the first version", 2, []peerView{self, old, third}, "node2 runs version 1.0"},
		{"one that was not heard", 2, []peerView{self, view("node2/b", nil), third}, "node2 has not told yet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := canApply(tt.need, tt.members, self.server.ID)
			if (err != nil) != (tt.says != "") || err != nil && (!errors.Is(err, revoked.ErrUnprocessable) || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}
