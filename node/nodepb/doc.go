// Package nodepb holds the protobuf messages of the calls between nodes. It contains no logic.
package nodepb

//go:generate sh -c "cd ../.. && protoc -I . --go_out=. --go_opt=module=revoked node/nodepb/rpc.proto"
