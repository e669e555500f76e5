package backup_test

import (
	"bytes"
	"encoding/pem"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"revoked"
	"revoked/cmd/revoked/internal/backup"
)

// newS3Bench returns a bench that also copies its backups to a bucket. The requests do not use the
// network.
func newS3Bench(t *testing.T) (*bench, *s3Fake) {
	t.Helper()
	b, fake := newBench(t), newS3Fake()
	keys := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(keys, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	b.cfg.Transport = fake
	b.cfg.Bucket = &backup.BucketConfig{Endpoint: "https://s3.example", Bucket: fakeBucket, Prefix: "/eu/node1/",
		Region: "eu-central-1", PathStyle: true,
		AccessKeyFile: write("access", "access-1\n"), SecretKeyFile: write("secret", "secret-1\n")}
	return b, fake
}

func TestUpload_Repeated_KeepsNewestAndForeignObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fake := newS3Bench(t)
		b.cfg.Keep = 2
		start := time.Now()
		want := []string{"eu/node1/revoked-19990101T000000.000Z-othercluster-7.snap", "eu/node1/revoked-notes",
			"eu/node1/x/" + nameAt(t, start.Add(-time.Hour)), "eu/node12/" + nameAt(t, start.Add(-time.Hour))}
		for _, key := range want {
			fake.objects[key] = []byte("x")
		}
		fake.objects["eu/node1/"+nameAt(t, start.Add(-time.Minute))] = []byte("older")
		b.run(t, 3*time.Hour+time.Minute)
		for _, h := range []time.Duration{2, 3} {
			want = append(want, "eu/node1/"+nameAt(t, start.Add(h*time.Hour)))
		}
		slices.Sort(want)
		if got := fake.names(); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		data, _ := golden(t)
		if got := fake.objects["eu/node1/"+nameAt(t, start.Add(3*time.Hour))]; !bytes.Equal(got, data) {
			t.Errorf("got %d bytes, want the backup", len(got))
		}
		if got := b.metricOf(t, "revoked_backup_due_timestamp_seconds", "s3"); got != float64(start.Add(4*time.Hour).Unix()) {
			t.Errorf("got due %v, want %v", got, start.Add(4*time.Hour).Unix())
		}
		both := []revoked.BackupStatus{{Target: "dir", Age: time.Minute}, {Target: "s3", Age: time.Minute}}
		if !slices.Equal(b.status, both) {
			t.Errorf("status: got %v, want %v", b.status, both)
		}
		if n := fake.count("put"); n != 4 {
			t.Errorf("got %d uploads, want 4", n)
		}
		b.run(t, 10*time.Minute) // after a restart, nothing is uploaded again
		if n := fake.count("put"); n != 4 {
			t.Errorf("after a restart: got %d uploads, want 4", n)
		}
	})
}

// While the service fails, the directory gets its backups and the bucket keeps its older backups.
// When the service works again, the newest backup is uploaded.
func TestUpload_ServiceFails_TriesAgain(t *testing.T) {
	for name, status := range map[string]int{"forbidden": 403, "broken": 500, "no bucket": 404} {
		for _, kind := range []string{"put", "list"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b, fake := newS3Bench(t)
					b.cfg.Keep = 1
					start := time.Now()
					older := "eu/node1/" + nameAt(t, start.Add(-2*time.Hour))
					fake.objects[older] = []byte("older")
					fake.fault = func(k string, w http.ResponseWriter, _ *http.Request) bool {
						if k == kind && time.Since(start) < 2*time.Hour+30*time.Second {
							refuse(w, status, "Failure")
							return true
						}
						return false
					}
					b.run(t, 2*time.Hour)
					if got := fake.names(); !slices.Contains(got, older) {
						t.Errorf("while it fails: got %v, want the older one", got)
					}
					if got := names(t, b.dir); len(got) != 1 {
						t.Errorf("got %v in the directory, want its newest", got)
					}
					if n := b.metricOf(t, "revoked_backup_failures_total", "s3"); n < 20 {
						t.Errorf("got %v failures, want at least 20", n)
					}
					if n := b.metric(t, "revoked_backup_failures_total"); n > 0 {
						t.Errorf("got %v failures of the directory, want none", n)
					}
					if log := b.log.String(); !strings.Contains(log, "Failure") || strings.Contains(log, "secret-1") {
						t.Errorf("got log %.800s, want the code and no secret", log)
					}
					newest := names(t, b.dir)[0]
					b.run(t, 10*time.Minute)
					if got, want := fake.names(), []string{"eu/node1/" + newest}; !slices.Equal(got, want) {
						t.Errorf("after the failures: got %v, want %v", got, want)
					}
				})
			})
		}
	}
}

// A request that gets 500 once is retried immediately. This is not a failure.
func TestUpload_OneServerError_IsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fake := newS3Bench(t)
		failed := false
		fake.fault = func(k string, w http.ResponseWriter, r *http.Request) bool {
			if k != "put" || failed {
				return false
			}
			failed = true
			_, _ = io.Copy(io.Discard, r.Body)
			refuse(w, 500, "InternalError")
			return true
		}
		b.run(t, time.Minute)
		if n := b.metricOf(t, "revoked_backup_failures_total", "s3"); n > 0 || len(fake.names()) != 1 {
			t.Errorf("got %v failures and %v, want a backup and none", n, fake.names())
		}
	})
}

func TestUpload_KeysReplaced_UsesNewKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fake := newS3Bench(t)
		fake.keys = map[string]string{"access-2": "secret-2"}
		b.run(t, time.Minute)
		if got := fake.names(); len(got) > 0 || !strings.Contains(b.log.String(), "got 403 SignatureDoesNotMatch") {
			t.Errorf("old keys: got %v and log %.800s, want 403", got, &b.log)
		}
		go func() {
			time.Sleep(time.Minute)
			for name, text := range map[string]string{b.cfg.Bucket.AccessKeyFile: "access-2\n",
				b.cfg.Bucket.SecretKeyFile: "secret-2"} {
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Error(err)
				}
			}
		}()
		b.run(t, 10*time.Minute)
		if got := fake.names(); len(got) != 1 {
			t.Errorf("new keys: got %v, want a backup", got)
		}
		for _, secret := range []string{"secret-1", "secret-2", "access-1", "access-2"} {
			if strings.Contains(b.log.String(), secret) {
				t.Errorf("got log with %s", secret)
			}
		}
	})
}

func TestUpload_KeyFileWrong_NamesItWithoutContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fake := newS3Bench(t)
		if err := os.WriteFile(b.cfg.Bucket.SecretKeyFile, []byte("canary-1\ncanary-2\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		b.run(t, time.Minute)
		log := b.log.String()
		if len(fake.names()) > 0 || !strings.Contains(log, b.cfg.Bucket.SecretKeyFile) || strings.Contains(log, "canary") {
			t.Errorf("got log %.800s, want the file without its content", log)
		}
	})
}

func TestUpload_NoKeys_SendsNoSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fake := newS3Bench(t)
		b.cfg.Bucket.AccessKeyFile, b.cfg.Bucket.SecretKeyFile, fake.keys = "", "", nil
		b.run(t, time.Minute)
		if got := fake.names(); len(got) != 1 {
			t.Errorf("got %v and log %s, want a backup", got, &b.log)
		}
	})
}

// A service that does not answer does not block a task forever.
func TestUpload_ServiceHangs_TimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fake := newS3Bench(t)
		start := time.Now()
		fake.fault = func(k string, _ http.ResponseWriter, r *http.Request) bool {
			if k != "put" || time.Since(start) > time.Minute {
				return false
			}
			<-r.Context().Done()
			return true
		}
		b.run(t, 5*time.Minute)
		if log := b.log.String(); len(fake.names()) != 1 || !strings.Contains(log, "no progress for 2m0s") {
			t.Errorf("got %v and log %s, want a backup after a stall", fake.names(), log)
		}
	})
}

// Uploads that a killed process left are aborted: those of files in this directory, and old ones. A
// newer upload of another node may be in progress, so it stays.
func TestUpload_UnfinishedUploads_AreAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fake := newS3Bench(t)
		now := time.Now()
		mine, theirs := nameAt(t, now.Add(-2*time.Hour)), nameAt(t, now.Add(-3*time.Hour))
		old := nameAt(t, now.Add(-99*time.Hour))
		put(t, b.dir, mine)
		for id, u := range map[string]*s3Upload{
			"mine":      {key: "eu/node1/" + mine, begun: now.Add(-2 * time.Hour)},
			"other key": {key: "eu/node1/revoked-x", begun: now},
			"theirs":    {key: "eu/node1/" + theirs, begun: now.Add(-3 * time.Hour)},
			"old":       {key: "eu/node1/" + old, begun: now.Add(-25 * time.Hour)},
		} {
			fake.uploads[id] = u
		}
		b.run(t, time.Minute)
		var left []string
		for id := range fake.uploads {
			left = append(left, id)
		}
		slices.Sort(left)
		if want := []string{"other key", "theirs"}; !slices.Equal(left, want) || len(fake.names()) != 1 {
			t.Errorf("got uploads %v and objects %v, want %v and a backup", left, fake.names(), want)
		}
	})
}

// If the disk damages a backup after it was made, it is not uploaded.
func TestUpload_FileDamaged_IsNotUploaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fake := newS3Bench(t)
		put(t, b.dir, nameAt(t, time.Now().Add(-time.Minute)))
		b.run(t, 30*time.Second)
		if got := fake.names(); len(got) > 0 || !strings.Contains(b.log.String(), "read the backup back") {
			t.Errorf("got %v and log %s, want no upload", got, &b.log)
		}
	})
}

// listen serves the fake with TLS, and returns a bucket that trusts its CA.
func (f *s3Fake) listen(t *testing.T, b *bench) backup.BucketConfig {
	t.Helper()
	srv := httptest.NewUnstartedServer(f)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	cfg := *b.cfg.Bucket
	cfg.Endpoint, cfg.CAFile = srv.URL, filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(cfg.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// largeFile returns a file that must be uploaded in five parts.
func largeFile(t *testing.T) (*os.File, []byte) {
	t.Helper()
	data := make([]byte, 64<<20+1)
	random := rand.NewChaCha8([32]byte{7})
	_, _ = random.Read(data)
	name := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, data
}

// A backup of more than 64 MiB becomes a multipart upload. A part is sent again if its connection
// breaks or the service answers 500.
func TestPut_LargeBackup_UsesMultipartUpload(t *testing.T) {
	file, data := largeFile(t)
	b, fake := newS3Bench(t)
	parts := 0
	fake.fault = func(k string, w http.ResponseWriter, r *http.Request) bool {
		if k != "part" {
			return false
		}
		switch parts++; parts {
		case 2:
			_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
			panic(http.ErrAbortHandler) // closes the connection within the request
		case 4:
			_, _ = io.Copy(io.Discard, r.Body)
			refuse(w, 500, "InternalError")
			return true
		}
		return false
	}
	if err := backup.Put(t.Context(), fake.listen(t, b), nil, "large", file, int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if got := fake.objects["eu/node1/large"]; !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, want those of the file", len(got))
	}
	if parts != 7 || fake.count("put") > 0 || fake.count("complete") != 1 {
		t.Errorf("got %d requests with parts, want 5 and two retries", parts)
	}
}

// An upload that fails leaves no object and no parts, which would cost money.
func TestPut_ConnectionsBreak_LeavesNothing(t *testing.T) {
	file, data := largeFile(t)
	b, fake := newS3Bench(t)
	fake.fault = func(k string, _ http.ResponseWriter, r *http.Request) bool {
		if k == "part" && r.URL.Query().Get("partNumber") == "2" {
			panic(http.ErrAbortHandler)
		}
		return false
	}
	err := backup.Put(t.Context(), fake.listen(t, b), nil, "large", file, int64(len(data)))
	if err == nil || len(fake.names()) > 0 || len(fake.uploads) > 0 || fake.count("abort") != 1 {
		t.Errorf("got %v, %v and uploads %v, want an error and neither", err, fake.names(), fake.uploads)
	}
}

// The node trusts only servers with a certificate of the CA file.
func TestPut_UnknownCA_SendsNothing(t *testing.T) {
	file, data := largeFile(t)
	b, fake := newS3Bench(t)
	cfg := fake.listen(t, b)
	cfg.CAFile = ""
	err := backup.Put(t.Context(), cfg, nil, "large", file, int64(len(data)))
	if err == nil || !strings.Contains(err.Error(), "unknown authority") || len(fake.calls) > 0 {
		t.Errorf("got %v and requests %v, want an error and none", err, fake.calls)
	}
}

func TestParseEndpoint_OtherText_IsRefused(t *testing.T) {
	for _, text := range []string{"", "s3.example", "ftp://s3.example", "https://", "https://s3.example/bucket",
		"https://a:canary@s3.example", "https://s3.example?x=1", "https://:9000"} {
		if _, err := backup.ParseEndpoint(text); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got %v, want an error without the text", text, err)
		}
	}
	if u, err := backup.ParseEndpoint("http://127.0.0.1:9000/"); err != nil || u.Host != "127.0.0.1:9000" {
		t.Errorf("got %v, %v, want the host", u, err)
	}
}
