package cas_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
	"github.com/convhost/convhost/host/cas/castest"
)

// TestMain makes the test binary a second process with an ephemeral store, a persistent one, or both, until killed.
func TestMain(m *testing.M) {
	if parent := os.Getenv("CAS_TEST_HOLD"); parent != "" {
		if err := hold(parent); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func hold(parent string) error {
	ctx := context.Background()
	if _, err := cas.OpenEphemeral(ctx, parent); err != nil {
		return err
	}
	s, err := cas.Open(ctx, filepath.Join(parent, "persistent"), cas.Options{})
	if err != nil {
		return err
	}
	ctx, _, err = s.Lease(ctx)
	if err != nil {
		return err
	}
	if _, err := cas.WriteDocument(ctx, s, "x/y", []byte("leased"), nil); err != nil {
		return err
	}
	w, err := s.Ingest(ctx, "half")
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "half of it"); err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

func TestEmbedded(t *testing.T) {
	castest.Run(t, func(t *testing.T) cas.Store {
		s, err := cas.Open(t.Context(), filepath.Join(t.TempDir(), "store"), cas.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestEphemeral(t *testing.T) {
	parent := t.TempDir()
	castest.Run(t, func(t *testing.T) cas.Store {
		s, err := cas.OpenEphemeral(t.Context(), parent)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSecondOwnerIsToldWho(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, err := cas.Open(t.Context(), dir, cas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = cas.Open(t.Context(), dir, cas.Options{})
	if !errors.Is(err, abi.ErrExists) || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("second open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = cas.Open(t.Context(), dir, cas.Options{}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := cas.Open(t.Context(), filepath.Join(dir, "no", "parent"), cas.Options{}); !errors.Is(err, abi.ErrNotFound) {
		t.Errorf("absent parent: %v", err)
	}
}

func TestKilledOwnersLeaveNothing(t *testing.T) {
	parent := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "CAS_TEST_HOLD="+parent)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("helper said %q, %v", line, err)
	}
	if _, err := cas.Open(t.Context(), filepath.Join(parent, "persistent"), cas.Options{}); !errors.Is(err, abi.ErrExists) {
		t.Errorf("store of a living process: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()

	e, err := cas.OpenEphemeral(t.Context(), parent)
	if err != nil {
		t.Fatal(err)
	}
	if dirs, _ := filepath.Glob(filepath.Join(parent, cas.EphemeralPrefix+"*")); len(dirs) != 1 {
		t.Errorf("ephemeral stores: %v, want only the new one", dirs)
	}
	e.Close()
	s, err := cas.Open(t.Context(), filepath.Join(parent, "persistent"), cas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if ok, err := s.Exists(t.Context(), digest.FromString("leased")); !ok || err != nil {
		t.Errorf("a committed blob is gone without GC: %v", err)
	}
	if n, err := s.GC(t.Context()); n != 0 || err != nil {
		t.Errorf("after GC: %d blobs, %v; the dead owner's lease still holds", n, err)
	}
	if names, _ := os.ReadDir(filepath.Join(parent, "persistent", "content", "ingest")); len(names) != 0 {
		t.Errorf("unfinished ingests: %v", names)
	}
}

func TestChangedBlobIsNoticed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, err := cas.Open(t.Context(), dir, cas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d, err := cas.WriteDocument(t.Context(), s, "x/y", []byte("hello"), nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "content", "blobs", "sha256", d.Digest.Encoded())
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for text, open := range map[string]bool{"jello": true, "hell": false, "hello!": false} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := cas.ReadDocument(t.Context(), s, d, 0); !errors.Is(err, abi.ErrDigest) {
			t.Errorf("%q: %v, want ErrDigest", text, err)
		}
		ra, err := s.Open(t.Context(), d)
		if (err == nil) != open {
			t.Errorf("open %q: %v", text, err)
		}
		if err == nil {
			ra.Close()
		}
	}
}

func Example() {
	parent, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(parent)
	store, err := cas.OpenEphemeral(context.Background(), parent)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	ctx, release, _ := store.Lease(context.Background())
	defer release()
	layer, _ := cas.WriteDocument(ctx, store, ocispec.MediaTypeImageLayer, []byte("layer"), nil)
	manifest, _ := cas.WriteDocument(ctx, store, ocispec.MediaTypeImageManifest, []byte("{}"), cas.RefLabels([]ocispec.Descriptor{layer}))
	fmt.Println(store.SetImage(ctx, cas.Image{Name: "example", Target: manifest}, ""))
	release()
	n, err := store.GC(ctx)
	fmt.Println(n, err)
	// Output:
	// <nil>
	// 2 <nil>
}
