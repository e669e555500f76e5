package config

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// An identity is the part of a data directory's identity.json that messages use. Package node reads
// the file itself and validates it.
type identity struct {
	NodeID    string `json:"node_id"`
	ClusterID string `json:"cluster_id"`
	Left      bool   `json:"left"`
}

// readIdentity returns the zero identity if the file cannot be read or parsed.
func readIdentity(dataDir string) (id identity) {
	data, err := os.ReadFile(filepath.Join(dataDir, "identity.json"))
	if err != nil || json.Unmarshal(data, &id) != nil {
		return identity{}
	}
	return id
}

// IsMember reports whether the data directory belongs to a node that is in a cluster.
func IsMember(dataDir string) bool {
	id := readIdentity(dataDir)
	return id.ClusterID != "" && !id.Left
}
