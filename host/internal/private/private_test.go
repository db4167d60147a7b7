//go:build unix

package private

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOthersCanWrite(t *testing.T) {
	for mode, want := range map[os.FileMode]string{0o600: "", 0o644: "", 0o755: "", 0o620: "others (mode 0620)", 0o602: "others (mode 0602)", 0o777: "others (mode 0777)"} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := OthersCanWrite(fi); got == "" != (want == "") || !strings.HasSuffix(got, want) {
			t.Errorf("mode %#o: %q, want …%q", mode, got, want)
		}
	}
}

// TestOtherOwner is for root, who can give a file away.
func TestOtherOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: only root can give a file to somebody else")
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := OthersCanWrite(fi), "belongs to user 65534"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
