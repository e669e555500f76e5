package snapshot

import (
	"fmt"
	"hash/crc32"

	"revoked"
)

// The stream. All numbers are big-endian.
//
//	8      magic "RVKDSNAP"
//	4      version, 1
//	4      length of the header, at most maxHead
//	...    header: a SnapshotHead
//	blocks, each:
//	  4    length, 1 to maxBlock
//	  ...  rows: uvarint key length, key, uvarint value length, value; keys ascend across all blocks
//	  4    CRC-32C of the rows
//	4      0: the end of the blocks
//	8      number of rows
//	32     SHA-256 of everything before it
//
// The rows are those of rows.StateFamilies. The state_hash of the header is the sum over them.
const (
	magic       = "RVKDSNAP"
	version     = 1
	maxHead     = 64 << 10
	maxBlock    = 4 << 20
	blockTarget = 256 << 10 // a block ends once it reaches this size
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrMalformed is wrapped by every error about the bytes of a snapshot.
var ErrMalformed = fmt.Errorf("%w: snapshot", revoked.ErrInvalid)
