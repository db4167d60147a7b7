package lockfile_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas/lockfile"
)

// TestMain makes the test binary a second process that holds a scratch directory until it is killed.
func TestMain(m *testing.M) {
	if parent := os.Getenv("LOCKFILE_TEST_HOLD"); parent != "" {
		s, err := lockfile.NewScratch(parent, "s-")
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.WriteFile(filepath.Join(s.Dir, "data"), make([]byte, 10), 0o600)
		fmt.Println(s.Dir)
		select {}
	}
	os.Exit(m.Run())
}

func TestTryLockNamesTheHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := lockfile.TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lockfile.TryLock(path)
	if !errors.Is(err, abi.ErrExists) || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
		t.Fatalf("second lock: %v, want ErrExists that names this process", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	l, err = lockfile.TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Fatalf("after Remove: %v", err)
	}
	if _, err := lockfile.TryLock(filepath.Join(path, "x", "y")); !errors.Is(err, abi.ErrNotFound) {
		t.Fatalf("absent directory: %v", err)
	}
}

func TestLockExcludesThoughFileIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var wg sync.WaitGroup
	var inside, count atomic.Int32 // the race detector knows nothing of file locks
	for range 8 {
		wg.Go(func() {
			for range 20 {
				l, err := lockfile.Lock(t.Context(), path)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d holders at once", n)
				}
				count.Add(1)
				inside.Add(-1)
				l.Remove()
			}
		})
	}
	wg.Wait()
	if count.Load() != 160 {
		t.Errorf("count %d, want 160", count.Load())
	}
}

func TestLockEndsWithContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := lockfile.TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := lockfile.Lock(ctx, path); abi.ClassOf(err) != abi.ErrTimeout {
		t.Fatalf("got %v, want ErrTimeout", err)
	}
}

func TestScratchOfKilledProcessIsRemoved(t *testing.T) {
	parent := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "LOCKFILE_TEST_HOLD="+parent)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.TrimSpace(line)
	user := filepath.Join(parent, "s-mine")
	if err := os.MkdirAll(filepath.Join(user, "data"), 0o700); err != nil {
		t.Fatal(err)
	}

	a, err := lockfile.NewScratch(parent, "s-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(theirs, "data")); err != nil {
		t.Fatalf("a living process's directory was touched: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	b, err := lockfile.NewScratch(parent, "s-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(theirs); !os.IsNotExist(err) {
		t.Errorf("killed process's directory is still there: %v", err)
	}
	if _, err := os.Stat(user); err != nil {
		t.Errorf("a directory that is not a scratch directory was removed: %v", err)
	}
	for _, s := range []*lockfile.Scratch{a, b} {
		if _, err := os.Stat(s.Dir); err != nil {
			t.Error(err)
		}
		if err := s.Remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
			t.Errorf("after Remove: %v", err)
		}
	}
}

func TestScratchConcurrently(t *testing.T) {
	parent := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 30 {
				s, err := lockfile.NewScratch(parent, "s-")
				if err != nil {
					t.Error(err)
					return
				}
				name := filepath.Join(s.Dir, "x")
				lockfile.Sweep(parent, "s-")
				if err := os.WriteFile(name, nil, 0o600); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(name); err != nil {
					t.Error(err)
				}
				if err := s.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
