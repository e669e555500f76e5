package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"revoked/cmd/revoked/internal/files"
)

// BucketConfig names a bucket of an S3 service and the files with its credentials.
type BucketConfig struct {
	Endpoint       string // URL
	Bucket, Prefix string // Prefix may be empty
	Region         string
	PathStyle      bool   // the name of the bucket is in the path, not in the host name
	CAFile         string // empty: the CAs of the system

	// Each request reads both files again. Both names are empty if requests have no signature.
	AccessKeyFile, SecretKeyFile string
}

const (
	onePart  = 64 << 20 // bytes; a larger backup becomes a multipart upload
	partSize = 16 << 20 // bytes of a part, which the library holds in memory
	maxParts = 9000     // the service allows 10,000

	// tries is how often the library sends a request that the service cannot answer. After that, the
	// task retries with longer pauses.
	tries = 3

	stallTime = 2 * time.Minute // longest time without progress of an upload, or for any other request
	maxKey    = 4 << 10         // limit of a file with a key, in bytes

	// staleUpload is the age after which a multipart upload is treated as unfinished, whichever
	// node began it.
	staleUpload = 24 * time.Hour
)

// A bucket keeps backups in an S3 service.
type bucket struct {
	core   *minio.Core
	name   string
	prefix string // empty, or ends with a slash
	stall  time.Duration
	now    func() time.Time
}

// newBucket reads the file of the CA and does no other I/O. If transport is nil, it uses the
// transport of the minio library with that CA.
func newBucket(cfg BucketConfig, transport http.RoundTripper, now func() time.Time) (*bucket, error) {
	endpoint, err := ParseEndpoint(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	if transport == nil {
		tlsConfig, err := files.TrustCA(cfg.CAFile)
		if err != nil {
			return nil, err
		}
		transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: tlsConfig, DisableCompression: true,
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 30 * time.Second, MaxIdleConns: 2,
		}
	}
	lookup := minio.BucketLookupDNS
	if cfg.PathStyle {
		lookup = minio.BucketLookupPath
	}
	core, err := minio.NewCore(endpoint.Host, &minio.Options{
		Creds: credentials.New(&keyFiles{cfg.AccessKeyFile, cfg.SecretKeyFile}), Secure: endpoint.Scheme == "https",
		Transport: transport, Region: cfg.Region, BucketLookup: lookup, MaxRetries: tries,
	})
	if err != nil {
		return nil, err
	}
	prefix := strings.Trim(cfg.Prefix, "/")
	if prefix != "" {
		prefix += "/"
	}
	return &bucket{core: core, name: cfg.Bucket, prefix: prefix, stall: stallTime, now: now}, nil
}

// ParseEndpoint returns the URL of an S3 service: a scheme and a host.
func ParseEndpoint(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("want a URL without a path such as https://s3.eu-central-1.amazonaws.com")
	}
	return u, nil
}

// CheckBucket returns an error unless name is a valid name of an S3 bucket.
func CheckBucket(name string) error { return s3utils.CheckValidBucketNameStrict(name) }

// CheckPrefix returns an error unless prefix is a valid prefix of names in a bucket.
func CheckPrefix(prefix string) error {
	const longest = 512
	if len(prefix) > longest {
		return fmt.Errorf("got %d bytes, want at most %d", len(prefix), longest)
	}
	for part := range strings.SplitSeq(strings.Trim(prefix, "/"), "/") {
		if part == "." || part == ".." || part == "" && strings.Trim(prefix, "/") != "" {
			return fmt.Errorf("got %q, want names separated by slashes", prefix)
		}
	}
	return nil
}

// keyFiles are the files with the two parts of a credential. If only one of them has been replaced,
// a request may fail, and the task retries it.
type keyFiles struct{ access, secret string }

// IsExpired always returns true, so that each request reads the files.
func (k *keyFiles) IsExpired() bool { return true }

func (k *keyFiles) Retrieve() (credentials.Value, error) { return k.RetrieveWithCredContext(nil) }

func (k *keyFiles) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	if k.access == "" {
		return credentials.Value{SignerType: credentials.SignatureAnonymous}, nil
	}
	access, err := ReadKey(k.access)
	if err != nil {
		return credentials.Value{}, err
	}
	secret, err := ReadKey(k.secret)
	return credentials.Value{AccessKeyID: access, SecretAccessKey: secret, SignerType: credentials.SignatureV4}, err
}

// ReadKey reads a file with one part of a credential. No error quotes the content.
func ReadKey(name string) (string, error) {
	data, err := files.Read(name, maxKey)
	if err != nil {
		return "", err
	}
	key, err := files.OneLine(data)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

// put uploads a file. The object appears only when it is complete. Each request has the MD5 of its
// bytes, so the service refuses bytes that were damaged on the way.
func (b *bucket) put(ctx context.Context, name string, file *os.File, size int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(b.stall, func() { cancel(fmt.Errorf("no progress for %v", b.stall)) })
	defer stalled.Stop()
	moving := progress{func() { stalled.Reset(b.stall) }}
	_, err := b.core.Client.PutObject(ctx, b.name, b.prefix+name, file, size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", SendContentMd5: true, Progress: moving, NumThreads: 1,
		DisableMultipart: size <= onePart, PartSize: uint64(max(partSize, size/maxParts)),
	})
	return b.problem(ctx, "upload", err)
}

// progress observes the bytes that the library sends.
type progress struct{ moved func() }

func (p progress) Read(b []byte) (int, error) {
	p.moved()
	return len(b), nil
}

// list returns the backups of a cluster, oldest first.
func (b *bucket) list(ctx context.Context, cluster string) ([]File, error) {
	ctx, cancel := b.limit(ctx)
	defer cancel()
	var all []File
	for o := range b.core.Client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: b.prefix + "revoked-"}) {
		if o.Err != nil {
			return nil, b.problem(ctx, "list", o.Err)
		}
		if f, ok := parseName(path.Base(o.Key)); ok && f.Cluster == cluster && o.Key == b.prefix+f.Name {
			f.Bytes = o.Size
			all = append(all, f)
		}
	}
	if ctx.Err() != nil {
		return nil, b.problem(ctx, "list", ctx.Err())
	}
	sortByTime(all)
	return all, nil
}

func (b *bucket) remove(ctx context.Context, name string) error {
	ctx, cancel := b.limit(ctx)
	defer cancel()
	return b.problem(ctx, "remove", b.core.Client.RemoveObject(ctx, b.name, b.prefix+name, minio.RemoveObjectOptions{}))
}

// abortUnfinished aborts multipart uploads that earlier processes did not finish. These are the
// uploads of backups for which mine returns true, and old uploads of any node.
func (b *bucket) abortUnfinished(ctx context.Context, mine func(name string) bool) error {
	ctx, cancel := b.limit(ctx)
	defer cancel()
	keyMarker, idMarker := "", ""
	for {
		page, err := b.core.ListMultipartUploads(ctx, b.name, b.prefix+"revoked-", keyMarker, idMarker, "", 1000)
		if err != nil {
			return b.problem(ctx, "list uploads", err)
		}
		for _, u := range page.Uploads {
			name, ok := strings.CutPrefix(u.Key, b.prefix)
			if _, valid := parseName(name); !ok || !valid || !mine(name) && b.now().Sub(u.Initiated) < staleUpload {
				continue
			}
			if err := b.core.AbortMultipartUpload(ctx, b.name, u.Key, u.UploadID); err != nil {
				return b.problem(ctx, "abort upload", err)
			}
		}
		if !page.IsTruncated || page.NextKeyMarker == keyMarker && page.NextUploadIDMarker == idMarker {
			return nil
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

func (b *bucket) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, b.stall, fmt.Errorf("no answer for %v", b.stall))
}

// problem describes an error of the service by its code and status, without the body.
func (b *bucket) problem(ctx context.Context, what string, err error) error {
	var answer minio.ErrorResponse
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("bucket %s: %s: %w", b.name, what, context.Cause(ctx))
	case errors.As(err, &answer) && answer.StatusCode != 0:
		return fmt.Errorf("bucket %s: %s: got %d %.80s", b.name, what, answer.StatusCode, answer.Code)
	}
	return fmt.Errorf("bucket %s: %s: %w", b.name, what, err)
}

var _ io.Reader = progress{}
