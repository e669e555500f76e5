// Package nodepb contains the protobuf messages of the calls between nodes, their paths, and the
// encoding of errors.
package nodepb

//go:generate sh -c "cd ../.. && protoc -I . --go_out=. --go_opt=module=revoked node/nodepb/rpc.proto"
