package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckBackups_Settings_AreChecked(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ file, want string }{
		"none":                  {"", ""},
		"an interval":           {"backup_schedule: 1h\nbackup_dir: " + dir, ""},
		"a cron expression":     {"backup_schedule: \"17 3 * * *\"\nbackup_dir: " + dir, ""},
		"no directory":          {"backup_schedule: 1h", "backup_dir: is not set, but backup_schedule is"},
		"no schedule":           {"backup_dir: " + dir, "is not set, but backup_dir is"},
		"a wrong schedule":      {"backup_schedule: hourly\nbackup_dir: " + dir, "want an interval such as 1h"},
		"none kept":             {"backup_schedule: 1h\nbackup_keep: 0\nbackup_dir: " + dir, "got 0, want 1 or more"},
		"below data_dir":        {"backup_schedule: 1h\nbackup_dir: data/x\ndata_dir: data", "is in data_dir"},
		"data_dir itself":       {"backup_schedule: 1h\nbackup_dir: data\ndata_dir: data", "is in data_dir"},
		"next to data_dir":      {"backup_schedule: 1h\nbackup_dir: " + dir + "\ndata_dir: " + dir + "/data", ""},
		"a missing directory":   {"backup_schedule: 1h\nbackup_dir: " + dir + "/none", "backup_dir: cannot store backups: "},
		"a file as a directory": {"backup_schedule: 1h\nbackup_dir: " + file, "backup_dir: cannot store backups: "},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := loadWith(t, nil, nil, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			c.CheckValues()
			c.tryBackups()
			var got []string
			for _, p := range c.problems {
				if strings.Contains(p.String(), "backup") {
					got = append(got, p.String())
				}
			}
			if text := strings.Join(got, "\n"); tt.want == "" && text != "" || !strings.Contains(text, tt.want) {
				t.Errorf("got %q, want %q", text, tt.want)
			}
		})
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("got %v, %v, want only the file of the test", left, err)
	}
}

func TestCheckBackups_Bucket_IsChecked(t *testing.T) {
	dir := t.TempDir()
	key, empty := filepath.Join(dir, "key"), filepath.Join(dir, "empty")
	for name, text := range map[string]string{key: "canary\n", empty: "",
		filepath.Join(dir, "two"): "canary\ncanary\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := "backup_schedule: 1h\nbackup_dir: " + dir + "\n"
	full := base + "backup_s3_endpoint: https://s3.example\nbackup_s3_bucket: backups\n"
	keys := "backup_s3_access_key_file: " + key + "\nbackup_s3_secret_key_file: "
	for name, tt := range map[string]struct{ file, want string }{
		"no keys":            {full, ""},
		"both keys":          {full + keys + key, ""},
		"a prefix":           {full + "backup_s3_prefix: eu/node1", ""},
		"one key":            {full + "backup_s3_access_key_file: " + key, "backup_s3_secret_key_file: is not set"},
		"the other key":      {full + "backup_s3_secret_key_file: " + key, "backup_s3_access_key_file: is not set"},
		"a missing key file": {full + keys + dir + "/none", "backup_s3_secret_key_file: open "},
		"an empty key file":  {full + keys + empty, "text is empty"},
		"a key of two lines": {full + keys + dir + "/two", "more than one line"},
		"no bucket":          {base + "backup_s3_endpoint: https://s3.example", "backup_s3_bucket: "},
		"a wrong bucket":     {base + "backup_s3_endpoint: https://s3.example\nbackup_s3_bucket: A_B", "backup_s3_bucket: "},
		"a wrong prefix":     {full + "backup_s3_prefix: a/../b", "want names separated"},
		"no endpoint":        {base + "backup_s3_bucket: backups", "has no effect without backup_s3_endpoint"},
		"an endpoint with a path": {base + "backup_s3_endpoint: https://s3.example/backups\nbackup_s3_bucket: backups",
			"want a URL without a path"},
		"no schedule": {"backup_s3_endpoint: https://s3.example\nbackup_s3_bucket: backups",
			"backup_s3_endpoint: has no effect without backup_schedule"},
		"a wrong CA":      {full + "backup_s3_ca_file: " + key, "contains no PEM certificate"},
		"an empty region": {full + "backup_s3_region: ''", "backup_s3_region: is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := loadWith(t, nil, nil, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			c.CheckValues()
			c.loadBucketFiles(&Files{})
			c.tryBackups()
			var got []string
			for _, p := range c.problems {
				if strings.Contains(p.String(), "backup") {
					got = append(got, p.String())
				}
			}
			text := strings.Join(got, "\n")
			if tt.want == "" && text != "" || !strings.Contains(text, tt.want) || strings.Contains(text, "canary") {
				t.Errorf("got %q, want %q", text, tt.want)
			}
		})
	}
}

func TestWarnings_BackupsOnDataDisk_AreReported(t *testing.T) {
	dir := t.TempDir()
	c, err := loadWith(t, nil, nil, "backup_schedule: 1h\nbackup_dir: "+dir+"\ndata_dir: "+dir+"/data")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Warnings(), "\n"); !strings.Contains(got, "backup_dir is on the file system of data_dir") {
		t.Errorf("got %q, want a warning", got)
	}
}
