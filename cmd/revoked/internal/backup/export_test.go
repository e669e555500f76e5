package backup

import (
	"context"
	"net/http"
	"os"
	"time"
)

// Put uploads a file to a bucket, through a transport or, if it is nil, through the network.
func Put(ctx context.Context, cfg BucketConfig, transport http.RoundTripper, name string, f *os.File,
	size int64) error {
	b, err := newBucket(cfg, transport, time.Now)
	if err != nil {
		return err
	}
	return b.put(ctx, name, f, size)
}
