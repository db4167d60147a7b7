// Package castest holds implementations of [cas.Store] to the contract in its comments. Each subtest is named after
// the sentence it checks.
//
//	func TestMyStore(t *testing.T) {
//		castest.Run(t, func(t *testing.T) cas.Store { return openMine(t, t.TempDir()) })
//	}
package castest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

// Run runs the suite. open gives a new, empty store for each case; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) cas.Store) {
	for _, c := range []struct {
		name string
		fn   func(t *testing.T, s cas.Store)
	}{
		{"ingest/commit makes blob and labels visible", commit},
		{"ingest/wrong size or digest keeps nothing", commitWrong},
		{"ingest/closed without commit keeps nothing", dropped},
		{"ingest/truncate starts again", truncate},
		{"ingest/one writer for a reference", oneWriter},
		{"ingest/existing blob merges labels", existing},
		{"ingest/sha512 and the empty blob", oddBlobs},
		{"ingest/same blob from many goroutines", concurrentIngest},
		{"open/size must fit", openSize},
		{"document/limit and digest", documents},
		{"labels/merge and remove", labels},
		{"walk/in order of digest", walk},
		{"image/compare and swap", imageSwap},
		{"image/concurrent swaps, one winner each", imageRace},
		{"image/remove is idempotent", imageRemove},
		{"gc/keeps what is reachable", gcReachable},
		{"gc/keeps what is leased", gcLease},
		{"gc/runs beside writers", gcConcurrent},
		{"invalid digests are refused", invalid},
		{"a cancelled context ends the call", cancelled},
		{"close/everything fails afterwards", closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			c.fn(t, s)
		})
	}
}

func desc(b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func put(t *testing.T, ctx context.Context, s cas.Store, text string, labels map[string]string) ocispec.Descriptor {
	t.Helper()
	d := desc([]byte(text))
	if _, err := cas.Copy(ctx, s, d, strings.NewReader(text), labels); err != nil {
		t.Fatalf("store %q: %v", text, err)
	}
	return d
}

func want(t *testing.T, err error, class abi.Class) {
	t.Helper()
	if err == nil || abi.ClassOf(err) != class {
		t.Errorf("error %v of class %q, want class %q", err, abi.ClassOf(err).Error(), class.Error())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exists(t *testing.T, s cas.Store, d digest.Digest) bool {
	t.Helper()
	ok, err := s.Exists(t.Context(), d)
	must(t, err)
	return ok
}

func commit(t *testing.T, s cas.Store) {
	ctx, text := t.Context(), []byte("hello")
	w, err := s.Ingest(ctx, "a")
	must(t, err)
	for _, c := range text {
		_, err := w.Write([]byte{c})
		must(t, err)
	}
	if exists(t, s, desc(text).Digest) {
		t.Error("visible before commit")
	}
	info, err := w.Commit(ctx, 5, desc(text).Digest, map[string]string{"k": "v"})
	must(t, err)
	must(t, w.Close())
	must(t, w.Close())
	if info.Size != 5 || info.Digest != desc(text).Digest || info.Labels["k"] != "v" {
		t.Errorf("commit told %+v", info)
	}
	info, err = s.Info(ctx, info.Digest)
	must(t, err)
	if info.Size != 5 || info.Labels["k"] != "v" {
		t.Errorf("info tells %+v", info)
	}
	ra, err := s.Open(ctx, desc(text))
	must(t, err)
	defer ra.Close()
	got, err := io.ReadAll(io.NewSectionReader(ra, 0, ra.Size()))
	if must(t, err); !bytes.Equal(got, text) {
		t.Errorf("read %q", got)
	}
	if f, ok := cas.FileOf(ra); ok {
		b := make([]byte, 3)
		if _, err := f.ReadAt(b, 1); err != nil || string(b) != "ell" {
			t.Errorf("file gives %q, %v", b, err)
		}
	}
	_, err = w.Write(text)
	want(t, err, abi.ErrInvalid)
}

func commitWrong(t *testing.T, s cas.Store) {
	ctx := t.Context()
	for _, c := range []struct {
		size int64
		dgst digest.Digest
	}{{6, ""}, {4, ""}, {0, ""}, {5, digest.FromString("other")}, {-1, digest.SHA512.FromString("other")}} {
		w, err := s.Ingest(ctx, "same")
		must(t, err)
		_, err = io.WriteString(w, "hello")
		must(t, err)
		_, err = w.Commit(ctx, c.size, c.dgst, nil)
		want(t, err, abi.ErrDigest)
		must(t, w.Close())
		if exists(t, s, digest.FromString("hello")) || exists(t, s, digest.FromString("other")) {
			t.Fatalf("size %d, digest %s: something was kept", c.size, c.dgst)
		}
	}
	d := desc([]byte("hello"))
	_, err := cas.Copy(ctx, s, d, strings.NewReader("hello, and more"), nil)
	want(t, err, abi.ErrDigest)
	_, err = cas.Copy(ctx, s, d, strings.NewReader("hell"), nil)
	want(t, err, abi.ErrDigest)
}

func dropped(t *testing.T, s cas.Store) {
	w, err := s.Ingest(t.Context(), "")
	must(t, err)
	_, err = io.WriteString(w, "hello")
	must(t, err)
	must(t, w.Close())
	_, err = w.Commit(t.Context(), 5, "", nil)
	want(t, err, abi.ErrInvalid)
	if exists(t, s, digest.FromString("hello")) {
		t.Error("kept")
	}
}

func truncate(t *testing.T, s cas.Store) {
	w, err := s.Ingest(t.Context(), "")
	must(t, err)
	defer w.Close()
	_, err = io.WriteString(w, "garbage")
	must(t, err)
	must(t, w.Truncate())
	_, err = io.WriteString(w, "hello")
	must(t, err)
	_, err = w.Commit(t.Context(), 5, digest.FromString("hello"), nil)
	must(t, err)
}

func oneWriter(t *testing.T, s cas.Store) {
	w, err := s.Ingest(t.Context(), "r")
	must(t, err)
	_, err = s.Ingest(t.Context(), "r")
	want(t, err, abi.ErrExists)
	must(t, w.Close())
	w, err = s.Ingest(t.Context(), "r")
	must(t, err)
	must(t, w.Close())
}

func existing(t *testing.T, s cas.Store) {
	ctx := t.Context()
	d := put(t, ctx, s, "hello", map[string]string{"a": "1"})
	put(t, ctx, s, "hello", map[string]string{"b": "2"})
	w, err := s.Ingest(ctx, "")
	must(t, err)
	defer w.Close()
	_, err = io.WriteString(w, "hello")
	must(t, err)
	_, err = w.Commit(ctx, 5, d.Digest, map[string]string{"c": "3"})
	must(t, err)
	info, err := s.Info(ctx, d.Digest)
	must(t, err)
	for k, v := range map[string]string{"a": "1", "b": "2", "c": "3"} {
		if info.Labels[k] != v {
			t.Errorf("label %s is %q, want %q", k, info.Labels[k], v)
		}
	}
}

func oddBlobs(t *testing.T, s cas.Store) {
	ctx := t.Context()
	for _, d := range []ocispec.Descriptor{
		{Digest: digest.SHA512.FromString("hello"), Size: 5}, {Digest: digest.FromString("hello"), Size: -1}, {Size: 5},
	} {
		_, err := cas.Copy(ctx, s, d, strings.NewReader("hello"), nil)
		must(t, err)
	}
	empty := put(t, ctx, s, "", nil)
	ra, err := s.Open(ctx, empty)
	must(t, err)
	defer ra.Close()
	if ra.Size() != 0 || !exists(t, s, digest.SHA512.FromString("hello")) {
		t.Error("not stored")
	}
}

func concurrentIngest(t *testing.T, s cas.Store) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				text := fmt.Sprint("blob ", j)
				_, err := cas.Copy(t.Context(), s, desc([]byte(text)), strings.NewReader(text), map[string]string{fmt.Sprint("l", i): "x"})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	n := 0
	must(t, s.Walk(t.Context(), func(i cas.Info) error {
		n++
		if len(i.Labels) != 8 {
			t.Errorf("%d labels of 8", len(i.Labels))
		}
		return nil
	}))
	if n != 5 {
		t.Errorf("%d blobs, want 5", n)
	}
}

func openSize(t *testing.T, s cas.Store) {
	d := put(t, t.Context(), s, "hello", nil)
	d.Size = 6
	_, err := s.Open(t.Context(), d)
	want(t, err, abi.ErrDigest)
	d.Size = -1
	ra, err := s.Open(t.Context(), d)
	must(t, err)
	must(t, ra.Close())
	_, err = s.Open(t.Context(), desc([]byte("absent")))
	want(t, err, abi.ErrNotFound)
}

func documents(t *testing.T, s cas.Store) {
	ctx := t.Context()
	d, err := cas.WriteDocument(ctx, s, ocispec.MediaTypeImageIndex, []byte("{}"), nil)
	must(t, err)
	b, err := cas.ReadDocument(ctx, s, d, 2)
	if must(t, err); string(b) != "{}" {
		t.Errorf("read %q", b)
	}
	_, err = cas.ReadDocument(ctx, s, d, 1)
	want(t, err, abi.ErrLimit)
	d.Size = -1
	_, err = cas.ReadDocument(ctx, s, d, 1)
	want(t, err, abi.ErrLimit)
}

func labels(t *testing.T, s cas.Store) {
	ctx := t.Context()
	d := put(t, ctx, s, "hello", map[string]string{"a": "1", "b.c/d": "2"})
	must(t, s.SetLabels(ctx, d.Digest, map[string]string{"a": "", "e": "3"}))
	must(t, s.SetLabels(ctx, d.Digest, nil))
	info, err := s.Info(ctx, d.Digest)
	must(t, err)
	if len(info.Labels) != 2 || info.Labels["b.c/d"] != "2" || info.Labels["e"] != "3" {
		t.Errorf("labels %v", info.Labels)
	}
	want(t, s.SetLabels(ctx, digest.FromString("absent"), map[string]string{"a": "1"}), abi.ErrNotFound)
	want(t, s.SetLabels(ctx, digest.FromString("absent"), nil), abi.ErrNotFound)
	want(t, s.SetLabels(ctx, d.Digest, map[string]string{"x": "1", "a": strings.Repeat("v", 5000)}), abi.ErrInvalid)
	info, err = s.Info(ctx, d.Digest)
	if must(t, err); info.Labels["x"] != "" {
		t.Error("half of a refused change was made")
	}
}

func walk(t *testing.T, s cas.Store) {
	for i := range 10 {
		put(t, t.Context(), s, fmt.Sprint(i), nil)
	}
	var last digest.Digest
	n := 0
	must(t, s.Walk(t.Context(), func(i cas.Info) error {
		if n++; i.Digest <= last {
			t.Errorf("%s after %s", i.Digest, last)
		}
		last = i.Digest
		return s.SetLabels(t.Context(), i.Digest, map[string]string{"seen": "1"})
	}))
	if n != 10 {
		t.Errorf("%d blobs", n)
	}
	stop := errors.New("stop")
	if err := s.Walk(t.Context(), func(cas.Info) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}
