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
		"no schedule":           {"backup_dir: " + dir, "backup_schedule: is not set, but backup_dir is"},
		"a wrong schedule":      {"backup_schedule: hourly\nbackup_dir: " + dir, "want an interval such as 1h"},
		"none kept":             {"backup_schedule: 1h\nbackup_keep: 0\nbackup_dir: " + dir, "backup_keep: want 1 or more"},
		"below data_dir":        {"backup_schedule: 1h\nbackup_dir: data/x\ndata_dir: data", "lies in data_dir"},
		"data_dir itself":       {"backup_schedule: 1h\nbackup_dir: data\ndata_dir: data", "lies in data_dir"},
		"beside data_dir":       {"backup_schedule: 1h\nbackup_dir: " + dir + "\ndata_dir: " + dir + "/data", ""},
		"a missing directory":   {"backup_schedule: 1h\nbackup_dir: " + dir + "/none", "backup_dir: cannot hold backups: "},
		"a file as a directory": {"backup_schedule: 1h\nbackup_dir: " + file, "backup_dir: cannot hold backups: "},
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

func TestWarnings_BackupsOnDiskOfData_Warned(t *testing.T) {
	dir := t.TempDir()
	c, err := loadWith(t, nil, nil, "backup_schedule: 1h\nbackup_dir: "+dir+"\ndata_dir: "+dir+"/data")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Warnings(), "\n"); !strings.Contains(got, "backup_dir is on the file system of data_dir") {
		t.Errorf("got %q, want a warning", got)
	}
}
