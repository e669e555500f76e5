package backup_test

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const fakeBucket = "backups"

// An s3Fake is a service with one bucket in path style. It checks signatures and the MD5 of bodies.
type s3Fake struct {
	mu      sync.Mutex
	keys    map[string]string // secret keys by access key; nil: requests without a signature
	objects map[string][]byte
	uploads map[string]*s3Upload
	calls   []string // METHOD KIND
	now     func() time.Time

	// fault may answer a request of some kind instead of the fake. It is called without a lock.
	fault func(kind string, w http.ResponseWriter, r *http.Request) (answered bool)
}

type s3Upload struct {
	key   string
	begun time.Time
	parts map[int][]byte
}

func newS3Fake() *s3Fake {
	return &s3Fake{keys: map[string]string{"access-1": "secret-1"}, objects: map[string][]byte{},
		uploads: map[string]*s3Upload{}, now: time.Now}
}

// RoundTrip lets a test use the fake without a network, in virtual time.
func (f *s3Fake) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	in := r.Clone(r.Context())
	in.Host = r.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	f.ServeHTTP(w, in)
	return w.Result(), r.Context().Err()
}

// names lists the keys of the objects.
func (f *s3Fake) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.objects))
}

func (f *s3Fake) count(kind string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c == kind {
			n++
		}
	}
	return n
}

func kindOf(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case r.Method == "GET" && q.Has("uploads"):
		return "list uploads"
	case r.Method == "GET":
		return "list"
	case r.Method == "POST" && q.Has("uploads"):
		return "begin"
	case r.Method == "POST":
		return "complete"
	case r.Method == "PUT" && q.Has("uploadId"):
		return "part"
	case r.Method == "PUT":
		return "put"
	case q.Has("uploadId"):
		return "abort"
	}
	return strings.ToLower(r.Method)
}

func (f *s3Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := kindOf(r)
	f.mu.Lock()
	f.calls = append(f.calls, kind)
	fault := f.fault
	f.mu.Unlock()
	if fault != nil && fault(kind, w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the connection broke
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.signed(r) {
		refuse(w, 403, "SignatureDoesNotMatch")
		return
	}
	key, ok := strings.CutPrefix(r.URL.Path, "/"+fakeBucket+"/")
	if !ok {
		refuse(w, 404, "NoSuchBucket")
		return
	}
	if sum := r.Header.Get("Content-Md5"); (kind == "put" || kind == "part") && sum != md5Of(body) {
		refuse(w, 400, "BadDigest")
		return
	}
	f.serve(w, r, kind, key, body)
}

func (f *s3Fake) serve(w http.ResponseWriter, r *http.Request, kind, key string, body []byte) {
	q := r.URL.Query()
	upload := f.uploads[q.Get("uploadId")]
	if q.Get("uploadId") != "" && upload == nil {
		refuse(w, 404, "NoSuchUpload")
		return
	}
	switch kind {
	case "put":
		f.objects[key] = body
		w.Header().Set("ETag", `"x"`)
	case "delete":
		delete(f.objects, key)
		w.WriteHeader(204)
	case "list":
		answer(w, f.page(q.Get("prefix")))
	case "list uploads":
		var page listUploads
		for id, u := range f.uploads {
			if strings.HasPrefix(u.key, q.Get("prefix")) {
				page.Upload = append(page.Upload, uploadView{u.key, id, u.begun.UTC()})
			}
		}
		answer(w, page)
	case "begin":
		id := fmt.Sprintf("upload-%d", len(f.calls))
		f.uploads[id] = &s3Upload{key: key, begun: f.now(), parts: map[int][]byte{}}
		answer(w, beginView{Bucket: fakeBucket, Key: key, UploadID: id})
	case "part":
		n, _ := strconv.Atoi(q.Get("partNumber"))
		upload.parts[n] = body
		w.Header().Set("ETag", fmt.Sprintf(`"part-%d"`, n))
	case "complete":
		var whole []byte
		for _, n := range slices.Sorted(maps.Keys(upload.parts)) {
			whole = append(whole, upload.parts[n]...)
		}
		f.objects[key] = whole
		delete(f.uploads, q.Get("uploadId"))
		answer(w, completeView{Bucket: fakeBucket, Key: key, ETag: "x"})
	case "abort":
		delete(f.uploads, q.Get("uploadId"))
		w.WriteHeader(204)
	default:
		refuse(w, 501, "NotImplemented")
	}
}

func (f *s3Fake) page(prefix string) listObjects {
	page := listObjects{Name: fakeBucket}
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		if rest, ok := strings.CutPrefix(key, prefix); ok && !strings.Contains(rest, "/") {
			page.Contents = append(page.Contents, objectView{key, int64(len(f.objects[key])), f.now().UTC(), `"x"`})
		}
	}
	return page
}

type (
	objectView struct {
		Key          string
		Size         int64
		LastModified time.Time
		ETag         string
	}
	listObjects struct {
		XMLName     xml.Name `xml:"ListBucketResult"`
		Name        string
		IsTruncated bool
		Contents    []objectView
	}
	uploadView struct {
		Key       string
		UploadID  string `xml:"UploadId"`
		Initiated time.Time
	}
	listUploads struct {
		XMLName     xml.Name `xml:"ListMultipartUploadsResult"`
		IsTruncated bool
		Upload      []uploadView
	}
	beginView struct {
		XMLName     xml.Name `xml:"InitiateMultipartUploadResult"`
		Bucket, Key string
		UploadID    string `xml:"UploadId"`
	}
	completeView struct {
		XMLName           xml.Name `xml:"CompleteMultipartUploadResult"`
		Bucket, Key, ETag string
	}
	errorView struct {
		XMLName       xml.Name `xml:"Error"`
		Code, Message string
	}
)

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_ = xml.NewEncoder(w).Encode(errorView{Code: code, Message: "you sent secret-1"})
}

func md5Of(b []byte) string {
	sum := md5.Sum(b)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// signed verifies AWS Signature Version 4.
func (f *s3Fake) signed(r *http.Request) bool {
	text := r.Header.Get("Authorization")
	if f.keys == nil {
		return text == ""
	}
	field := func(name string) string {
		_, rest, _ := strings.Cut(text, name+"=")
		value, _, _ := strings.Cut(rest, ",")
		return value
	}
	access, scope, _ := strings.Cut(field("Credential"), "/")
	secret, known := f.keys[access]
	if !known || !strings.HasPrefix(text, "AWS4-HMAC-SHA256 ") {
		return false
	}
	var headers strings.Builder
	for name := range strings.SplitSeq(field("SignedHeaders"), ";") {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = strconv.FormatInt(r.ContentLength, 10)
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.TrimSpace(value))
	}
	canonical := strings.Join([]string{r.Method, (&url.URL{Path: r.URL.Path}).EscapedPath(),
		strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20"), headers.String(), field("SignedHeaders"),
		r.Header.Get("X-Amz-Content-Sha256")}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), scope,
		hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + secret)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	return hex.EncodeToString(mac(key, toSign)) == field("Signature")
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
