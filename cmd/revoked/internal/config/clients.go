package config

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"revoked"
	"revoked/api"
	"revoked/api/clientauth"
	"revoked/node/jwt"
)

// AdminID is the client id of the administrator whose secret is in bootstrap_admin_secret_file.
const AdminID = "admin"

// errNoList is returned when a file of clients is not a list.
var errNoList = errors.New("want a list of clients, each with client_id and client_secret or client_secret_hash")

// parseClients reads a YAML or JSON list of client records. A record is the body of POST
// /v1/clients, or has client_secret_hash in place of client_secret. The error names the line and
// the client of the first invalid record and quotes no value. After an error it returns no client.
func parseClients(data []byte) ([]revoked.Client, error) {
	root, err := parseYAML(data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w; %w", err, errNoList)
	case root == nil:
		return nil, nil
	case root.Kind != yaml.SequenceNode:
		return nil, fmt.Errorf("line %d: %w", root.Line, errNoList)
	}
	clients := make([]revoked.Client, 0, len(root.Content))
	for i, node := range root.Content {
		cl, err := parseClient(node)
		if err != nil {
			return nil, fmt.Errorf("client %d (%q): %w", i+1, idOf(node), err)
		}
		clients = append(clients, cl)
	}
	return clients, nil
}

func idOf(node *yaml.Node) string {
	var r struct {
		ClientID string `yaml:"client_id"`
	}
	_ = node.Decode(&r) // an invalid record has no id
	return r.ClientID
}

func parseClient(node *yaml.Node) (revoked.Client, error) {
	var fields map[string]yaml.Node
	if node.Decode(&fields) != nil {
		return revoked.Client{}, fmt.Errorf("line %d: want keys and values, each key once", node.Line)
	}
	record := map[string]any{}
	for key, n := range fields {
		v, err := plainValue(&n)
		if key == "jwks" {
			v, err = nestedValue(&n)
		}
		if err != nil {
			return revoked.Client{}, fmt.Errorf("line %d: %s: %w", n.Line, key, err)
		}
		if v != nil && v != "" {
			record[key] = v
		}
	}
	secret, hash := record["client_secret"], record["client_secret_hash"]
	delete(record, "client_secret_hash")
	body, err := json.Marshal(record)
	if err != nil {
		return revoked.Client{}, err
	}
	cl, err := api.ParseClient(body, jwt.ParseInline)
	if err != nil {
		return cl, inFile(err, node, fields)
	}
	text, _ := hash.(string)
	switch {
	case cl.Type == revoked.Public && hash != nil:
		return cl, errors.New("client_secret_hash: a public client cannot have a secret")
	case !cl.UsesSecret() && hash != nil:
		return cl, errors.New("client_secret_hash: no method in auth_methods uses a secret")
	case cl.Type == revoked.Public || !cl.UsesSecret() || secret != nil && hash == nil:
		return cl, nil
	case secret != nil:
		return cl, errors.New("has both client_secret and client_secret_hash")
	case hash == nil:
		return cl, errors.New("has neither client_secret nor client_secret_hash")
	}
	h, err := parseSecretHash(text)
	if err == nil && h.Kind == revoked.HashArgon2id && record["imported"] != true {
		err = fmt.Errorf("client_secret_hash: argon2id is the hash of a secret of less than %d bytes: set imported",
			clientauth.StrongSecret)
	}
	cl.Secrets = []revoked.SecretHash{h}
	return cl, err
}

// inFile replaces the byte offset in an error of the API with the line in the file.
func inFile(err error, record *yaml.Node, fields map[string]yaml.Node) error {
	detail, _, _ := strings.Cut(revoked.Detail(err), " (byte ")
	line := record.Line
	for key, n := range fields {
		if strings.HasPrefix(detail, key+":") || strings.HasSuffix(detail, " "+key) {
			line = n.Line
		}
	}
	return fmt.Errorf("line %d: %s", line, detail)
}

// nestedValue returns the value of a JWK set, which is an object in YAML or JSON.
func nestedValue(n *yaml.Node) (v any, err error) {
	if n.Decode(&v) != nil {
		return nil, errors.New("want a JWK set")
	}
	if _, isMap := v.(map[string]any); !isMap {
		return nil, errors.New("want a JWK set")
	}
	return v, nil
}

// plainValue returns the value of a field as encoding/json would: a bool, a list of strings, nil,
// or a string. A number that is not quoted is treated as a string.
func plainValue(n *yaml.Node) (any, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return nil, nil
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool":
		var b bool
		return b, n.Decode(&b)
	case n.Kind == yaml.ScalarNode:
		return n.Value, nil
	}
	var list []string
	if n.Kind != yaml.SequenceNode || n.Decode(&list) != nil {
		return nil, errors.New("want a plain value or a list of them")
	}
	// The API drops repeated elements. In a file they are probably a mistake.
	if len(slices.Compact(slices.Sorted(slices.Values(list)))) < len(list) {
		return nil, errors.New("an element is repeated")
	}
	return list, nil
}

// hashNames are the names of hashes in a file: sha256 is SHA-256 over salt and secret, argon2id is
// argon2id with 19 MiB and 2 passes.
var hashNames = []string{revoked.HashSHA256: "sha256", revoked.HashArgon2id: "argon2id"}

// FormatSecretHash formats h for client_secret_hash: kind:salt:hash, with salt and hash in
// base64url without padding.
func FormatSecretHash(h revoked.SecretHash) string {
	b64 := base64.RawURLEncoding
	return hashNames[h.Kind] + ":" + b64.EncodeToString(h.Salt) + ":" + b64.EncodeToString(h.Hash)
}

// errSecretHash does not quote the text: it could be a secret in the wrong place.
var errSecretHash = errors.New("client_secret_hash: want kind:salt:hash as revoked keygen --hash prints it")

func parseSecretHash(s string) (revoked.SecretHash, error) {
	parts := strings.Split(s, ":")
	kind := slices.Index(hashNames, parts[0])
	if len(s) > 256 || len(parts) != 3 || kind <= 0 || parts[0] == "" {
		return revoked.SecretHash{}, errSecretHash
	}
	b64 := base64.RawURLEncoding.Strict()
	salt, err1 := b64.DecodeString(parts[1])
	hash, err2 := b64.DecodeString(parts[2])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(hash) != 32 {
		return revoked.SecretHash{}, errSecretHash
	}
	return revoked.SecretHash{Kind: revoked.HashKind(kind), Salt: salt, Hash: hash}, nil
}
