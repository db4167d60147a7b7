// Package deduptest holds implementations of [dedup.Store] to the contract in its comments. Each subtest is named after
// the sentence it checks.
//
//	func TestMyStore(t *testing.T) {
//		deduptest.Run(t, deduptest.Config{
//			Open: func(t *testing.T) dedup.Store { return openMine(t, t.TempDir()) },
//		})
//	}
package deduptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/dedup"
)

// Config says what is tested.
type Config struct {
	// Open gives a new, empty store for each case; the suite closes it.
	Open func(t *testing.T) dedup.Store
	// Again opens the store that Open gave last once more, as another process would; nil if that cannot be.
	Again func(t *testing.T) dedup.Store
	// Shared says that machines share the store, which then leaves out local places.
	Shared bool
}

// Run runs the suite.
func Run(t *testing.T, c Config) {
	for _, tc := range []struct {
		name string
		fn   func(t *testing.T, s dedup.Store)
	}{
		{"get/absent", absent},
		{"put/is what get gives", putGet},
		{"put/replaces", replace},
		{"put/kinds are apart", kinds},
		{"put/refuses what cannot be meant", refused},
		{"put/large records", large},
		{"put/arguments are not kept", notKept},
		{"drop/is idempotent", drop},
		{"places/newest first, each once", places},
		{"places/at most MaxPlaces", manyPlaces},
		{"places/refuses what cannot be meant", badPlaces},
		{"places/local ones", func(t *testing.T, s dedup.Store) { localPlaces(t, s, c.Shared) }},
		{"list/all records", list},
		{"prune/by use", prune},
		{"many goroutines", concurrent},
		{"two users of one store", func(t *testing.T, s dedup.Store) { again(t, s, c.Again) }},
		{"a cancelled context ends the call", cancelled},
		{"close/everything fails afterwards", closed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := c.Open(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			tc.fn(t, s)
		})
	}
}

// LayerRecord returns a valid record with all fields set; other texts give other keys.
func LayerRecord(text string) *dedup.Record {
	key := dedup.LayerKey{Engine: dedup.Engine{Format: "copy", Version: "1", Code: "sha256:1"}, Request: abi.ConvertRequest{Layer: abi.LayerInfo{Digest: text}}}
	return &dedup.Record{
		Key: key.Key(), Format: "copy", Version: "1", Source: digest.FromString(text),
		Layer: &dedup.Layer{
			State: []byte("state\x00\xff of " + text), Warnings: []string{"a 'quoted' \"word\"", "ü\n2"},
			Parts: []dedup.Part{
				{Name: "main", MediaType: "x/y", Digest: digest.FromString("part " + text), Size: 1 << 40, DiffID: digest.FromString("raw " + text),
					Annotations: map[string]string{"a": "1", "b": `\'"; drop table x`}},
				{Digest: digest.SHA512.FromString(text), Size: 0, DiffID: digest.FromString(text), Aux: true},
			},
		},
	}
}

// ManifestRecord returns a valid record with all fields set; other texts give other keys.
func ManifestRecord(text string) *dedup.Record {
	key := dedup.ManifestKey{Engine: dedup.Engine{Format: "copy", Version: "1", Code: "sha256:1"}, Source: digest.FromString(text)}
	return &dedup.Record{
		Key: key.Key(), Format: "copy", Version: "1", Source: digest.FromString(text), Platform: "linux/arm/v7",
		Manifest: &dedup.Manifest{
			Converted: dedup.Target{MediaType: "m/n", Digest: digest.FromString("converted " + text), Size: 77},
			Layers: []dedup.ManifestLayer{
				{MediaType: "x/y", Digest: digest.FromString("l0 " + text), Size: 5, DiffID: digest.FromString("d0"), Annotations: map[string]string{"k": ""}},
				{MediaType: "x/z", Digest: digest.FromString("l1 " + text), Size: 6, DiffID: digest.FromString("d1"), Source: -1, CreatedBy: "by", Comment: "c"},
			},
			OSFeatures: []string{"f"}, ConfigMediaType: "c/d", Annotations: map[string]string{"q": "r"}, ArtifactType: "a/t",
			Warnings: []string{"w"}, LayerWarnings: [][]string{{"v"}, nil},
		},
	}
}

// Repository returns the n-th of many places.
func Repository(n int) dedup.Place {
	return dedup.Place{Transport: "docker", Host: "registry.example:5000", Path: fmt.Sprintf("team/App-%d", n)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err error, class abi.Class) {
	t.Helper()
	if err == nil || abi.ClassOf(err) != class {
		t.Errorf("error %v of class %q, want class %q", err, abi.ClassOf(err).Error(), class.Error())
	}
}

// same holds what the store gives for a key against a record.
func same(t *testing.T, s dedup.Store, rec *dedup.Record) {
	t.Helper()
	got, err := s.Get(t.Context(), rec.Key)
	if err != nil {
		t.Errorf("get: %v", err)
	} else if diff := cmp.Diff(rec, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func absent(t *testing.T, s dedup.Store) {
	_, err := s.Get(t.Context(), LayerRecord("x").Key)
	want(t, err, abi.ErrNotFound)
	_, err = s.Get(t.Context(), dedup.Key{Kind: dedup.KindLayer, ID: "sha256:../../etc"})
	want(t, err, abi.ErrInvalid)
	_, err = s.Get(t.Context(), dedup.Key{Kind: "..", ID: digest.FromString("")})
	want(t, err, abi.ErrInvalid)
}

func putGet(t *testing.T, s dedup.Store) {
	for _, r := range []*dedup.Record{LayerRecord("a"), ManifestRecord("a"), LayerRecord("b")} {
		must(t, s.Put(t.Context(), r))
	}
	for _, r := range []*dedup.Record{LayerRecord("a"), ManifestRecord("a"), LayerRecord("b")} {
		same(t, s, r)
	}
	empty := LayerRecord("c")
	empty.Layer = &dedup.Layer{Parts: []dedup.Part{}}
	must(t, s.Put(t.Context(), empty))
	same(t, s, empty)
}

func replace(t *testing.T, s dedup.Store) {
	r := LayerRecord("a")
	must(t, s.Put(t.Context(), r))
	must(t, s.Put(t.Context(), r))
	r.Layer.State = []byte("other")
	must(t, s.Put(t.Context(), r))
	same(t, s, r)
}

func kinds(t *testing.T, s dedup.Store) {
	l, m := LayerRecord("a"), ManifestRecord("a")
	m.Key.ID = l.Key.ID
	must(t, s.Put(t.Context(), l))
	_, err := s.Get(t.Context(), m.Key)
	want(t, err, abi.ErrNotFound)
	must(t, s.Put(t.Context(), m))
	same(t, s, l)
	must(t, s.Drop(t.Context(), l.Key))
	same(t, s, m)
}

func refused(t *testing.T, s dedup.Store) {
	for name, breakIt := range map[string]func(*dedup.Record){
		"no kind":       func(r *dedup.Record) { r.Key.Kind = "" },
		"short id":      func(r *dedup.Record) { r.Key.ID = "sha256:00" },
		"no layer":      func(r *dedup.Record) { r.Layer = nil },
		"both":          func(r *dedup.Record) { r.Manifest = ManifestRecord("a").Manifest },
		"no source":     func(r *dedup.Record) { r.Source = "" },
		"no format":     func(r *dedup.Record) { r.Format = "" },
		"part's digest": func(r *dedup.Record) { r.Layer.Parts[0].Digest = "x" },
		"part's size":   func(r *dedup.Record) { r.Layer.Parts[0].Size = -1 },
	} {
		r := LayerRecord("a")
		breakIt(r)
		if err := s.Put(t.Context(), r); abi.ClassOf(err) != abi.ErrInvalid {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	_, err := s.Get(t.Context(), LayerRecord("a").Key)
	want(t, err, abi.ErrNotFound)
}

func large(t *testing.T, s dedup.Store) {
	r := LayerRecord("a")
	r.Layer.State = make([]byte, 4<<20) // base64 makes a third more of it
	must(t, s.Put(t.Context(), r))
	got, err := s.Get(t.Context(), r.Key)
	if must(t, err); !bytes.Equal(got.Layer.State, r.Layer.State) {
		t.Errorf("%d bytes of state, want %d, or others", len(got.Layer.State), len(r.Layer.State))
	}
	r.Layer.State = make([]byte, dedup.MaxRecord)
	want(t, s.Put(t.Context(), r), abi.ErrLimit)
}

func notKept(t *testing.T, s dedup.Store) {
	r := LayerRecord("a")
	must(t, s.Put(t.Context(), r))
	r.Layer.State[0] ^= 1
	r.Layer.Parts[0].Annotations["a"] = "2"
	same(t, s, LayerRecord("a"))
	got, err := s.Get(t.Context(), r.Key)
	must(t, err)
	got.Layer.State[0] ^= 1
	same(t, s, LayerRecord("a"))
}

func drop(t *testing.T, s dedup.Store) {
	r := LayerRecord("a")
	must(t, s.Drop(t.Context(), r.Key))
	must(t, s.Put(t.Context(), r))
	must(t, s.Put(t.Context(), LayerRecord("b")))
	must(t, s.Drop(t.Context(), r.Key))
	must(t, s.Drop(t.Context(), r.Key))
	_, err := s.Get(t.Context(), r.Key)
	want(t, err, abi.ErrNotFound)
	same(t, s, LayerRecord("b"))
}

func wantPlaces(t *testing.T, s dedup.Store, blob digest.Digest, want ...dedup.Place) {
	t.Helper()
	got, err := s.Places(t.Context(), blob)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("places of %s: %v, %v; want %v", blob, got, err, want)
	}
}

// tick lets time pass as far as stores can see.
func tick() { time.Sleep(2 * time.Millisecond) }

func places(t *testing.T, s dedup.Store) {
	ctx, a, b := t.Context(), digest.FromString("a"), digest.SHA512.FromString("b")
	wantPlaces(t, s, a)
	must(t, s.AddPlace(ctx, Repository(1), a, b))
	tick()
	must(t, s.AddPlace(ctx, Repository(2), a))
	wantPlaces(t, s, a, Repository(2), Repository(1))
	wantPlaces(t, s, b, Repository(1))
	tick()
	must(t, s.AddPlace(ctx, Repository(1), a, a))
	wantPlaces(t, s, a, Repository(1), Repository(2))
	must(t, s.DropPlace(ctx, Repository(1), a))
	must(t, s.DropPlace(ctx, Repository(1), a))
	must(t, s.DropPlace(ctx, Repository(7), a, digest.FromString("never")))
	wantPlaces(t, s, a, Repository(2))
	wantPlaces(t, s, b, Repository(1))
	must(t, s.DropPlace(ctx, Repository(2), a))
	wantPlaces(t, s, a)
	other := Repository(1)
	other.Path = strings.ToLower(other.Path)
	tick()
	must(t, s.AddPlace(ctx, other, b)) // case matters in paths
	wantPlaces(t, s, b, other, Repository(1))
	must(t, s.AddPlace(ctx, other))
}

func manyPlaces(t *testing.T, s dedup.Store) {
	blob := digest.FromString("a")
	var newest []dedup.Place
	for i := range 6 * dedup.MaxPlaces {
		must(t, s.AddPlace(t.Context(), Repository(i), blob))
		newest = append([]dedup.Place{Repository(i)}, newest...)
		tick()
	}
	wantPlaces(t, s, blob, newest[:dedup.MaxPlaces]...)
}

func badPlaces(t *testing.T, s dedup.Store) {
	blob := digest.FromString("a")
	for _, p := range []dedup.Place{
		{}, {Transport: "docker"}, {Transport: "docker", Host: "h"}, {Transport: "docker", Path: "p"}, {Transport: "docker", Host: "h", Path: "a\nb"},
		{Transport: "docker", Host: "h", Path: "a:b"}, {Transport: "oci", Path: "relative"}, {Transport: "docker-archive", Path: "/x"},
		{Transport: "docker", Host: "h", Path: strings.Repeat("p", 300)},
	} {
		want(t, s.AddPlace(t.Context(), p, blob), abi.ErrInvalid)
		want(t, s.DropPlace(t.Context(), p, blob), abi.ErrInvalid)
	}
	want(t, s.AddPlace(t.Context(), Repository(1), "sha256:.."), abi.ErrInvalid)
	_, err := s.Places(t.Context(), "x")
	want(t, err, abi.ErrInvalid)
	wantPlaces(t, s, blob)
}

func localPlaces(t *testing.T, s dedup.Store, shared bool) {
	blob := digest.FromString("a")
	local := dedup.Place{Transport: "oci", Path: filepath.Join(t.TempDir(), "with a space: and 'more'")}
	must(t, s.AddPlace(t.Context(), local, blob))
	if shared {
		wantPlaces(t, s, blob)
	} else {
		wantPlaces(t, s, blob, local)
	}
	must(t, s.DropPlace(t.Context(), local, blob))
	wantPlaces(t, s, blob)
}

func list(t *testing.T, s dedup.Store) {
	ctx := t.Context()
	for i := range 10 {
		must(t, s.Put(ctx, LayerRecord(fmt.Sprint(i))))
		must(t, s.Put(ctx, ManifestRecord(fmt.Sprint(i))))
	}
	must(t, s.Drop(ctx, LayerRecord("3").Key))
	found := map[dedup.Key]bool{}
	must(t, s.List(ctx, func(e dedup.Entry) error {
		if found[e.Record.Key] || e.Record.Validate() != nil || time.Since(e.Used).Abs() > time.Hour {
			t.Errorf("%s, used %v: twice, invalid, or at another time", e.Record.Key, e.Used)
		}
		found[e.Record.Key] = true
		same(t, s, e.Record)
		return nil
	}))
	if len(found) != 19 || found[LayerRecord("3").Key] {
		t.Errorf("%d records, want 19", len(found))
	}
	stop := errors.New("stop")
	if err := s.List(ctx, func(dedup.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func prune(t *testing.T, s dedup.Store) {
	ctx, blob := t.Context(), digest.FromString("a")
	for i := range 5 {
		must(t, s.Put(ctx, LayerRecord(fmt.Sprint(i))))
	}
	must(t, s.AddPlace(ctx, Repository(1), blob))
	n, err := s.Prune(ctx, time.Now().Add(-time.Hour))
	if must(t, err); n != 0 {
		t.Errorf("%d records were pruned that are new", n)
	}
	same(t, s, LayerRecord("1"))
	wantPlaces(t, s, blob, Repository(1))
	n, err = s.Prune(ctx, time.Now().Add(time.Hour))
	if must(t, err); n != 5 {
		t.Errorf("%d records were pruned of 5", n)
	}
	_, err = s.Get(ctx, LayerRecord("1").Key)
	want(t, err, abi.ErrNotFound)
	wantPlaces(t, s, blob)
}

func concurrent(t *testing.T, s dedup.Store) {
	blob := digest.FromString("a")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 6 {
				r := LayerRecord(fmt.Sprint(j % 3))
				err := errors.Join(s.Put(t.Context(), r), s.AddPlace(t.Context(), Repository(j), blob))
				got, gerr := s.Get(t.Context(), r.Key)
				switch {
				case gerr == nil && cmp.Diff(r, got) != "":
					t.Errorf("got another record, or half of one: %s", cmp.Diff(r, got))
				case gerr != nil && abi.ClassOf(gerr) != abi.ErrNotFound:
					err = errors.Join(err, gerr)
				}
				if i == 0 {
					err = errors.Join(err, s.Drop(t.Context(), r.Key), s.DropPlace(t.Context(), Repository(j), blob))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := s.Places(t.Context(), blob); err != nil {
		t.Error(err)
	}
}

func again(t *testing.T, s dedup.Store, open func(*testing.T) dedup.Store) {
	if open == nil {
		t.Log("this store has one user")
		return
	}
	o := open(t)
	defer o.Close()
	blob := digest.FromString("a")
	must(t, s.Put(t.Context(), LayerRecord("a")))
	same(t, o, LayerRecord("a"))
	must(t, o.AddPlace(t.Context(), Repository(1), blob))
	wantPlaces(t, s, blob, Repository(1))
	must(t, o.Drop(t.Context(), LayerRecord("a").Key))
	_, err := s.Get(t.Context(), LayerRecord("a").Key)
	want(t, err, abi.ErrNotFound)
	must(t, o.Close())
	must(t, s.Put(t.Context(), LayerRecord("a")))
}

func cancelled(t *testing.T, s dedup.Store) {
	must(t, s.Put(t.Context(), LayerRecord("a")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range calls(ctx, s) {
		if !errors.Is(err, abi.ErrCanceled) {
			t.Errorf("%s: %v, want ErrCanceled", name, err)
		}
	}
	same(t, s, LayerRecord("a"))
}

func closed(t *testing.T, s dedup.Store) {
	must(t, s.Put(t.Context(), LayerRecord("a")))
	must(t, s.Close())
	must(t, s.Close())
	for name, err := range calls(t.Context(), s) {
		if !errors.Is(err, abi.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// calls returns the error of every method.
func calls(ctx context.Context, s dedup.Store) map[string]error {
	r, blob := LayerRecord("a"), digest.FromString("a")
	_, get := s.Get(ctx, r.Key)
	_, pl := s.Places(ctx, blob)
	_, pr := s.Prune(ctx, time.Now())
	return map[string]error{
		"get": get, "put": s.Put(ctx, r), "drop": s.Drop(ctx, r.Key), "places": pl, "add place": s.AddPlace(ctx, Repository(1), blob),
		"drop place": s.DropPlace(ctx, Repository(1), blob), "list": s.List(ctx, func(dedup.Entry) error { return nil }), "prune": pr,
	}
}
