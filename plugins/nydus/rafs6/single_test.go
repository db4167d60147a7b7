package rafs6

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
)

// ownLayer writes a layer's blob as the plugin does, and returns its bootstrap and state.
func ownLayer(t testing.TB, o Options, entries []tarEntry) (boot, state []byte, err error) {
	t.Helper()
	tree, err := build(o, entries, func(_ uint32, raw []byte) uint32 { return uint32(max(1, len(raw)*2/3)) })
	if err != nil {
		return nil, nil, err
	}
	tail, err := tree.WriteTail(io.Discard, TailOptions{InlineMeta: true, Toc: true,
		Sum:    func(p []byte) ([32]byte, error) { return sha256.Sum256(p), nil },
		Encode: func(abi.Codec, []byte) ([]byte, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return tail.Boot, tree.State(sha256.Sum256(tail.Boot)), nil
}

func addOpened(m *Merger, boot, state []byte, id string) error {
	tree, err := Open(boot)
	if err == nil {
		err = tree.ApplyState(state)
	}
	if err == nil {
		err = m.Add(tree, id)
	}
	return err
}

// mergeOne merges one layer the long way.
func mergeOne(t testing.TB, boot, state []byte, id string, o MergeOptions) []byte {
	t.Helper()
	m := NewMerger(o)
	if err := addOpened(m, boot, state, id); err != nil {
		t.Fatal(err)
	}
	tree, err := m.Finish()
	if err != nil {
		t.Fatal(err)
	}
	out, err := tree.Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSingle: what Single makes of a layer is what a merge of that layer gives, byte for byte, and it refuses layers with
// whiteouts, other bootstraps and other prefetch tables.
func TestSingle(t *testing.T) {
	id := strings.Repeat("5a", 32)
	r := rand.New(rand.NewPCG(3, 4))
	done := map[bool]int{}
	for n := range 3000 {
		o := plainOptions
		o.Prefetch = [][]string{nil, {"/"}, {"/", "/a"}, {"/a"}}[n%4]
		entries := randomLayer(r, n%3 == 0, true)
		boot, state, err := ownLayer(t, o, entries)
		if err != nil {
			continue // no layer that could be extracted
		}
		m := MergeOptions{Correct: true, Prefetch: o.Prefetch}
		want := mergeOne(t, boot, state, id, m)
		got := bytes.Clone(boot)
		ok := Single(got, state, sha256.Sum256(boot), id, m)
		if done[ok]++; !ok {
			want = boot // untouched
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("case %d, done %v: differs from byte %#x\n%s", n, ok, firstDiff(got, want), dump([][]tarEntry{entries}))
		}
	}
	t.Logf("%d done, %d left to a merge", done[true], done[false])
	if done[true] < 500 || done[false] < 300 {
		t.Error("too few cases compared")
	}
}

func TestSingleRefuses(t *testing.T) {
	id := strings.Repeat("5a", 32)
	all := MergeOptions{Correct: true, Prefetch: []string{"/"}}
	withAll := plainOptions
	withAll.Prefetch = all.Prefetch
	boot, state, err := ownLayer(t, withAll, []tarEntry{file("a", "content")})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(boot)
	if !Single(bytes.Clone(boot), state, sum, id, all) {
		t.Fatal("a plain layer is refused")
	}
	whited, whitedState, err := ownLayer(t, withAll, []tarEntry{file("a", "content"), file("d/.wh.x", "")})
	if err != nil {
		t.Fatal(err)
	}
	gone, goneState, err := ownLayer(t, withAll, []tarEntry{file("a", "content"), {Entry: symlink("a", "b")}})
	if err != nil {
		t.Fatal(err)
	}
	cut := bytes.Clone(boot[:len(boot)-1])
	for name, c := range map[string]struct {
		boot, state []byte
		sum         [32]byte
		id          string
		o           MergeOptions
	}{
		"no state":             {boot, nil, sum, id, all},
		"state cut off":        {boot, state[:20], sum, id, all},
		"other bootstrap":      {boot, state, [32]byte{1}, id, all},
		"unknown digest":       {boot, append([]byte(stateMagic), make([]byte, 32)...), [32]byte{}, id, all},
		"whiteouts":            {whited, whitedState, sha256.Sum256(whited), id, all},
		"blob without files":   {gone, goneState, sha256.Sum256(gone), id, all},
		"bad id":               {boot, state, sum, "a b", all},
		"long id":              {boot, state, sum, id + "a", all},
		"as upstream":          {boot, state, sum, id, MergeOptions{Prefetch: all.Prefetch}},
		"no prefetch":          {boot, state, sum, id, MergeOptions{Correct: true}},
		"some prefetch":        {boot, state, sum, id, MergeOptions{Correct: true, Prefetch: []string{"/a"}}},
		"bootstrap is cut off": {cut, append([]byte(stateMagic), sum[:]...), sum, id, all},
	} {
		got := bytes.Clone(c.boot)
		if Single(got, c.state, c.sum, c.id, c.o) || !bytes.Equal(got, c.boot) {
			t.Errorf("%s: accepted or changed", name)
		}
	}
}

// TestAddBootstrap: a merge that loads its layers itself gives the same bytes as one of layers that were opened.
func TestAddBootstrap(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	done := 0
	for n := range 2000 {
		var boots, states [][]byte
		var all [][]tarEntry
		for range 1 + n%3 {
			entries := randomLayer(r, true, true)
			boot, state, err := ownLayer(t, plainOptions, entries)
			if err != nil {
				break
			}
			boots, states, all = append(boots, boot), append(states, state), append(all, entries)
		}
		o := MergeOptions{Correct: n%2 == 0, Prefetch: []string{"/a", "/b"}}
		merge := func(add func(m *Merger, boot, state []byte, id string) error) ([]byte, error) {
			m := NewMerger(o)
			for k := range boots {
				if err := add(m, boots[k], states[k], strings.Repeat(string(rune('a'+k)), 64)); err != nil {
					return nil, err
				}
			}
			image, err := m.Finish()
			if err != nil {
				return nil, err
			}
			return image.Bootstrap()
		}
		want, wantErr := merge(addOpened)
		got, err := merge((*Merger).AddBootstrap)
		if abi.ClassOf(err) != abi.ClassOf(wantErr) || !bytes.Equal(got, want) {
			t.Fatalf("case %d: differs from byte %#x, errors %v and %v\n%s", n, firstDiff(got, want), err, wantErr, dump(all))
		}
		if wantErr == nil {
			done++
		}
	}
	if t.Logf("%d compared", done); done < 500 {
		t.Error("too few cases compared")
	}
}
