package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/dedup/deduptest"
	"github.com/convhost/convhost/host/transport"
)

func TestMemory(t *testing.T) {
	deduptest.Run(t, deduptest.Config{Open: func(*testing.T) dedup.Store { return dedup.NewMemory() }})
}

func TestDir(t *testing.T) {
	var path string
	open := func(t *testing.T) dedup.Store {
		s, err := dedup.OpenDir(path)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	deduptest.Run(t, deduptest.Config{
		Open: func(t *testing.T) dedup.Store {
			path = filepath.Join(t.TempDir(), "no", "parent")
			return open(t)
		},
		Again: open,
	})
}

func openDir(t *testing.T) (dedup.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	s, err := dedup.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path
}

func recordFile(t *testing.T, path string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(path, "layer", "*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v; want one", files, err)
	}
	return files[0]
}

func TestDamagedRecords(t *testing.T) {
	s, path := openDir(t)
	rec := deduptest.LayerRecord("a")
	if err := s.Put(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	file := recordFile(t, path)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	try := func(name string, b []byte) {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Get(t.Context(), rec.Key); abi.ClassOf(err) != abi.ErrCorrupt || r != nil {
			t.Errorf("%s: %v, %v; want ErrCorrupt", name, r, err)
		}
	}
	for n := range good { // cut at every byte
		if r, err := dedup.Decode(rec.Key, good[:n]); abi.ClassOf(err) != abi.ErrCorrupt || r != nil {
			t.Errorf("cut at %d: %v, %v; want ErrCorrupt", n, r, err)
		}
	}
	for i := 0; i < len(good); i += 101 {
		b := []byte(string(good))
		b[i] ^= 1
		try(fmt.Sprintf("bit of byte %d", i), b)
	}
	try("nothing", nil)
	try("half", good[:len(good)/2])
	try("more", append(good[:len(good):len(good)], ' '))
	n := 0
	if err := s.List(t.Context(), func(dedup.Entry) error { n++; return nil }); err != nil || n != 0 {
		t.Errorf("list: %d records, %v", n, err)
	}
	if err := s.Drop(t.Context(), rec.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), rec.Key); !errors.Is(err, abi.ErrNotFound) {
		t.Error(err)
	}
}

func TestRecordOfAnotherKey(t *testing.T) {
	s, path := openDir(t)
	a, b := deduptest.LayerRecord("a"), deduptest.LayerRecord("b")
	if err := s.Put(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	file := recordFile(t, path)
	hex := b.Key.ID.Encoded()
	other := filepath.Join(path, "layer", hex[:2], hex)
	if err := errors.Join(os.MkdirAll(filepath.Dir(other), 0o700), os.Rename(file, other)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), b.Key); abi.ClassOf(err) != abi.ErrCorrupt || !strings.Contains(err.Error(), a.Key.String()) {
		t.Errorf("got %v", err)
	}
}

func TestUseIsNoted(t *testing.T) {
	s, path := openDir(t)
	rec := deduptest.LayerRecord("a")
	if err := s.Put(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(recordFile(t, path), old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), rec.Key); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Prune(t.Context(), time.Now().Add(-25*time.Hour)); n != 0 || err != nil {
		t.Errorf("%d records pruned, %v", n, err)
	}
}

func TestKilledWritersLeaveNothing(t *testing.T) {
	s, path := openDir(t)
	if err := s.Put(t.Context(), deduptest.LayerRecord("a")); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(filepath.Dir(recordFile(t, path)), ".new-x")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(half, old, old); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Prune(t.Context(), old.Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := os.Stat(half); err == nil {
		t.Error("still there")
	}
}

func TestDirOfOthers(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dedup.OpenDir(file); err == nil {
		t.Error("a file was opened")
	}
	if runtime.GOOS == "windows" {
		t.Skip("skipped: no modes there")
	}
	open := filepath.Join(dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := dedup.OpenDir(open); !errors.Is(err, abi.ErrDenied) {
		t.Errorf("everybody can write there: %v", err)
	}
}

func TestPlaces(t *testing.T) {
	abs := t.TempDir()
	for ref, want := range map[string]string{
		"docker://registry.example/a/b:tag": "docker://registry.example/a/b",
		"oci:" + abs + ":tag":               "oci:" + abs,
		"oci-archive:" + abs + ".tar":       "oci-archive:" + abs + ".tar",
	} {
		r, err := transport.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		p, ok := dedup.PlaceOf(r)
		if !ok || p.String() != want {
			t.Errorf("%s is at %v (%v), want %s", ref, p, ok, want)
		}
		if q, err := dedup.ParsePlace(p.String()); q != p || err != nil {
			t.Errorf("%s reads as %v, %v", p, q, err)
		}
		if again, ok := dedup.PlaceOf(p.Reference()); !ok || again != p {
			t.Errorf("reference of %s is at %s", p, again)
		}
	}
	r, err := transport.ParseReference("docker-archive:" + abs + ".tar")
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := dedup.PlaceOf(r); ok {
		t.Errorf("blobs of an archive of docker save are found at %v", p)
	}
}

// Everything that a result depends on is in the key.
func TestKeys(t *testing.T) {
	base := func() dedup.LayerKey {
		return dedup.LayerKey{
			Engine: dedup.Engine{Format: "f", Version: "1", Code: "sha256:1", Host: "h"},
			Request: abi.ConvertRequest{
				Layer:   abi.LayerInfo{Digest: "sha256:a", DiffID: "sha256:b", ChainID: "sha256:c", MediaType: "m", Size: 3, Annotations: map[string]string{"k": "v"}},
				Options: map[string]string{"a": "1", "b": "2"}, Parents: []abi.PartInfo{{Digest: "sha256:p"}}, Dicts: []abi.PartInfo{{Digest: "sha256:d"}},
				Features: []string{"x"},
			},
		}
	}
	k := base()
	seen := map[dedup.Key]string{k.Key(): "nothing"}
	for name, change := range map[string]func(*dedup.LayerKey){
		"format":      func(k *dedup.LayerKey) { k.Engine.Format = "g" },
		"version":     func(k *dedup.LayerKey) { k.Engine.Version = "2" },
		"code":        func(k *dedup.LayerKey) { k.Engine.Code = "sha256:2" },
		"host":        func(k *dedup.LayerKey) { k.Engine.Host = "i" },
		"borders":     func(k *dedup.LayerKey) { k.Engine.Version, k.Engine.Code = "1s", "ha256:1" },
		"digest":      func(k *dedup.LayerKey) { k.Request.Layer.Digest = "sha256:z" },
		"diff id":     func(k *dedup.LayerKey) { k.Request.Layer.DiffID = "sha256:z" },
		"chain":       func(k *dedup.LayerKey) { k.Request.Layer.ChainID = "sha256:z" },
		"media type":  func(k *dedup.LayerKey) { k.Request.Layer.MediaType = "n" },
		"annotations": func(k *dedup.LayerKey) { k.Request.Layer.Annotations["k"] = "w" },
		"option":      func(k *dedup.LayerKey) { k.Request.Options["b"] = "3" },
		"parent":      func(k *dedup.LayerKey) { k.Request.Parents[0].Digest = "sha256:q" },
		"no parent":   func(k *dedup.LayerKey) { k.Request.Parents = nil },
		"dictionary":  func(k *dedup.LayerKey) { k.Request.Dicts[0].Digest = "sha256:q" },
		"features":    func(k *dedup.LayerKey) { k.Request.Features = nil },
	} {
		k := base()
		change(&k)
		if other, ok := seen[k.Key()]; ok {
			t.Errorf("%s makes no difference to %s", name, other)
		}
		seen[k.Key()] = name
	}
	if k, l := base(), base(); k.Key() != l.Key() {
		t.Error("equal keys differ")
	}
	m := dedup.ManifestKey{Engine: base().Engine, Source: digest.FromString("m")}
	n := m
	n.Merge.Platform = "linux/arm64"
	o := m
	o.Layers = []abi.ConvertRequest{base().Request}
	if m.Key() == n.Key() || m.Key() == o.Key() || n.Key() == o.Key() {
		t.Error("different images have one key")
	}
}

// Whatever decodes is valid, encodes, and decodes again; anything else is ErrCorrupt.
func FuzzDecode(f *testing.F) {
	for _, r := range []*dedup.Record{deduptest.LayerRecord("a"), deduptest.ManifestRecord("a")} {
		b, err := dedup.Encode(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[65:], true)
		f.Add(b, false)
	}
	f.Add([]byte(`{"key":{"kind":"layer","id":""}}`), true)
	f.Add([]byte(`[[[[[[[[`), true)
	layer, manifest := deduptest.LayerRecord("a").Key, deduptest.ManifestRecord("a").Key
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if sum { // past the checksum
			b = append([]byte(digest.FromBytes(b).Encoded()+"\n"), b...)
		}
		for _, key := range []dedup.Key{layer, manifest} {
			r, err := dedup.Decode(key, b)
			if err != nil {
				if abi.ClassOf(err) != abi.ErrCorrupt || r != nil {
					t.Fatalf("%v, %v", r, err)
				}
				continue
			}
			out, err := dedup.Encode(r)
			if err != nil || r.Key != key {
				t.Fatalf("%v of %s", err, r.Key)
			}
			if again, err := dedup.Decode(key, out); err != nil || again.Key != key {
				t.Fatalf("read again: %v", err)
			}
			r.Blobs()
		}
	})
}

// What is read as a place is written the same way, and valid.
func FuzzPlace(f *testing.F) {
	for _, s := range []string{"docker://registry.example:5000/a/b", "oci:/a b:c", "oci-archive:/x.tar", "docker:", "oci:relative", "docker://h/", "docker://h/a:b", "", ":", "oci:/\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := dedup.ParsePlace(s)
		if err != nil {
			if abi.ClassOf(err) != abi.ErrInvalid {
				t.Fatal(err)
			}
			return
		}
		if p.String() != s || p.Validate() != nil {
			t.Fatalf("%q is %q, %v", s, p, p.Validate())
		}
	})
}

func Example() {
	store := dedup.NewMemory()
	defer store.Close()
	ctx := context.Background()
	rec := deduptest.LayerRecord("a layer")
	fmt.Println(store.Put(ctx, rec))
	fmt.Println(store.AddPlace(ctx, dedup.Place{Transport: "docker", Host: "registry.example", Path: "app"}, rec.Blobs()...))
	places, err := store.Places(ctx, rec.Layer.Parts[0].Digest)
	fmt.Println(places, err)
	// Output:
	// <nil>
	// <nil>
	// [docker://registry.example/app] <nil>
}
