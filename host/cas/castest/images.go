package castest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

func imageSwap(t *testing.T, s cas.Store) {
	ctx := t.Context()
	a, b := put(t, ctx, s, "a", nil), put(t, ctx, s, "b", nil)
	_, err := s.Image(ctx, "n")
	want(t, err, abi.ErrNotFound)
	must(t, s.SetImage(ctx, cas.Image{Name: "n", Target: a, Labels: map[string]string{"l": "1"}}, ""))
	want(t, s.SetImage(ctx, cas.Image{Name: "n", Target: b}, ""), abi.ErrExists)
	want(t, s.SetImage(ctx, cas.Image{Name: "n", Target: b}, b.Digest), abi.ErrExists)
	want(t, s.SetImage(ctx, cas.Image{Name: "new", Target: b}, a.Digest), abi.ErrExists)
	img, err := s.Image(ctx, "n")
	if must(t, err); img.Target.Digest != a.Digest || img.Labels["l"] != "1" || img.Target.MediaType != a.MediaType {
		t.Errorf("image %+v", img)
	}
	must(t, s.SetImage(ctx, cas.Image{Name: "n", Target: b}, a.Digest))
	must(t, s.SetImage(ctx, cas.Image{Name: "n", Target: a}, cas.AnyTarget))
	must(t, s.SetImage(ctx, cas.Image{Name: "m", Target: b}, cas.AnyTarget))
	list, err := s.Images(ctx)
	if must(t, err); len(list) != 2 || list[0].Name != "m" || list[1].Target.Digest != a.Digest {
		t.Errorf("images %+v", list)
	}
	want(t, s.SetImage(ctx, cas.Image{Name: "x", Target: desc([]byte("absent"))}, ""), abi.ErrNotFound)
	a.Size++
	want(t, s.SetImage(ctx, cas.Image{Name: "x", Target: a}, ""), abi.ErrDigest)
}

func imageRace(t *testing.T, s cas.Store) {
	ctx := t.Context()
	var targets []ocispec.Descriptor
	for i := range 4 {
		targets = append(targets, put(t, ctx, s, fmt.Sprint("target ", i), nil))
	}
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range targets {
		wg.Go(func() {
			for n := 0; n < 10; {
				old := digest.Digest("")
				if img, err := s.Image(ctx, "n"); err == nil {
					old = img.Target.Digest
				}
				err := s.SetImage(ctx, cas.Image{Name: "n", Target: targets[i]}, old)
				switch {
				case err == nil:
					won.Add(1)
					n++
				case !errors.Is(err, abi.ErrExists):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if won.Load() != 40 {
		t.Errorf("%d swaps of 40", won.Load())
	}
}

func imageRemove(t *testing.T, s cas.Store) {
	ctx := t.Context()
	must(t, s.RemoveImage(ctx, "n"))
	must(t, s.SetImage(ctx, cas.Image{Name: "n", Target: put(t, ctx, s, "a", nil)}, ""))
	must(t, s.RemoveImage(ctx, "n"))
	must(t, s.RemoveImage(ctx, "n"))
}

func gcReachable(t *testing.T, s cas.Store) {
	ctx := t.Context()
	layer, config := put(t, ctx, s, "layer", nil), put(t, ctx, s, "config", nil)
	layer.MediaType, config.MediaType = ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageConfig
	loose := put(t, ctx, s, "loose", nil)
	root := put(t, ctx, s, "root", map[string]string{cas.LabelGCRoot: "yes"})
	// The manifest exists before it gets its edges: the case in which plain containerd drops them.
	put(t, ctx, s, "manifest", nil)
	m := put(t, ctx, s, "manifest", cas.RefLabels([]ocispec.Descriptor{config, layer, layer}))
	must(t, s.SetImage(ctx, cas.Image{Name: "n", Target: m}, ""))
	n, err := s.GC(ctx)
	if must(t, err); n != 4 {
		t.Errorf("%d blobs left, want 4", n)
	}
	for _, d := range []ocispec.Descriptor{layer, config, m, root} {
		if !exists(t, s, d.Digest) {
			t.Errorf("%s was collected", d.Digest)
		}
	}
	if exists(t, s, loose.Digest) {
		t.Error("a loose blob was kept")
	}
	must(t, s.RemoveImage(ctx, "n"))
	if n, err = s.GC(ctx); err != nil || n != 1 {
		t.Errorf("after removal: %d blobs, %v", n, err)
	}
}

func gcLease(t *testing.T, s cas.Store) {
	before := put(t, t.Context(), s, "before", nil)
	want(t, s.Hold(t.Context(), before.Digest), abi.ErrInvalid)
	ctx, release, err := s.Lease(t.Context())
	must(t, err)
	must(t, s.Hold(ctx, before.Digest))
	want(t, s.Hold(ctx, digest.FromString("absent")), abi.ErrNotFound)
	put(t, ctx, s, "during", nil)
	w, err := s.Ingest(ctx, "open")
	must(t, err)
	_, err = w.Write([]byte("slow"))
	must(t, err)
	if n, err := s.GC(ctx); err != nil || n != 2 {
		t.Errorf("with a lease: %d blobs, %v", n, err)
	}
	_, err = w.Commit(ctx, 4, digest.FromString("slow"), nil)
	must(t, err)
	must(t, w.Close())
	if n, err := s.GC(ctx); err != nil || n != 3 {
		t.Errorf("with a lease: %d blobs, %v", n, err)
	}
	must(t, release())
	must(t, release())
	if n, err := s.GC(t.Context()); err != nil || n != 0 {
		t.Errorf("after release: %d blobs, %v", n, err)
	}
}

func gcConcurrent(t *testing.T, s cas.Store) {
	var writers, collector sync.WaitGroup
	stop := make(chan struct{})
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := s.GC(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for i := range 4 {
		writers.Go(func() {
			for j := range 10 {
				if err := storeImage(t.Context(), s, fmt.Sprint(i, ".", j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	collector.Wait()
	if n, err := s.GC(t.Context()); err != nil || n != 81 {
		t.Errorf("%d blobs, %v, want 40 images of one own blob and a common one", n, err)
	}
}

func storeImage(ctx context.Context, s cas.Store, name string) error {
	ctx, release, err := s.Lease(ctx)
	if err != nil {
		return err
	}
	defer release()
	children := make([]ocispec.Descriptor, 0, 2)
	for _, text := range []string{"common", "own " + name} {
		d := desc([]byte(text))
		if _, err := cas.Copy(ctx, s, d, strings.NewReader(text), nil); err != nil {
			return err
		}
		children = append(children, d)
	}
	m, err := cas.WriteDocument(ctx, s, ocispec.MediaTypeImageManifest, []byte("manifest "+name), cas.RefLabels(children))
	if err != nil {
		return err
	}
	return s.SetImage(ctx, cas.Image{Name: name, Target: m}, "")
}

func invalid(t *testing.T, s cas.Store) {
	for _, d := range []digest.Digest{"", "x", "sha256:../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e",
		digest.Digest("sha256:" + strings.Repeat("A", 64))} {
		_, err := s.Info(t.Context(), d)
		want(t, err, abi.ErrInvalid)
		_, err = s.Open(t.Context(), ocispec.Descriptor{Digest: d, Size: -1})
		want(t, err, abi.ErrInvalid)
		want(t, s.SetLabels(t.Context(), d, nil), abi.ErrInvalid)
		want(t, s.SetImage(t.Context(), cas.Image{Name: "n", Target: ocispec.Descriptor{Digest: d, Size: 1}}, ""), abi.ErrInvalid)
	}
}

func cancelled(t *testing.T, s cas.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Info(ctx, digest.FromString("x"))
	want(t, err, abi.ErrCanceled)
	_, err = s.Ingest(ctx, "")
	want(t, err, abi.ErrCanceled)
	_, err = s.GC(ctx)
	want(t, err, abi.ErrCanceled)
}

func closed(t *testing.T, s cas.Store) {
	ctx := t.Context()
	d := put(t, ctx, s, "a", nil)
	ra, err := s.Open(ctx, d)
	must(t, err)
	w, err := s.Ingest(ctx, "")
	must(t, err)
	_, release, err := s.Lease(ctx)
	must(t, err)
	if err := ra.Close(); err != nil {
		t.Error(err)
	}
	must(t, s.Close())
	must(t, s.Close())
	_, err = w.Commit(ctx, -1, "", nil)
	want(t, err, abi.ErrInvalid)
	must(t, w.Close())
	want(t, release(), abi.ErrInvalid)
	_, err = s.Exists(ctx, d.Digest)
	want(t, err, abi.ErrInvalid)
	_, err = s.Image(ctx, "n")
	want(t, err, abi.ErrInvalid)
	_, err = s.GC(ctx)
	want(t, err, abi.ErrInvalid)
}
