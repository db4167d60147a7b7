package judges

import (
	"archive/tar"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/test/judge"
	"github.com/convhost/convhost/test/kitchen"
	"github.com/convhost/convhost/test/rawobd"
)

// wear makes layers that wear a file system out: files of all sizes come, change and go, directories grow over many blocks and
// shrink, attributes spill into blocks of their own, hard links reach into lower layers.
type wear struct {
	r        *rand.Rand
	files    map[string]bool // and links: what exists
	dirs     []string        // "" is the root; none of them goes
	names    int
	t        *kitchen.Tar    // the layer in work
	used     map[string]bool // names with an entry in it
	rootless bool            // layers say nothing of the root directory
}

func newWear(seed uint64) *wear {
	return &wear{r: rand.New(rand.NewPCG(seed, 11)), files: map[string]bool{}, dirs: []string{""}}
}

// name invents one in a directory that is there, so short that it has a whiteout.
func (w *wear) name() string {
	w.names++
	n := fmt.Sprintf("%x", w.names*7919)
	if w.r.IntN(3) == 0 {
		n += strings.Repeat("n", w.r.IntN(252-len(n)))
	}
	return path.Join(w.dirs[w.r.IntN(len(w.dirs))], n)
}

// some picks a file that the layer did not touch, or "".
func (w *wear) some() string {
	all := slices.DeleteFunc(slices.Sorted(maps.Keys(w.files)), func(n string) bool { return w.used[n] })
	if len(all) == 0 {
		return ""
	}
	return all[w.r.IntN(len(all))]
}

func (w *wear) put(name string) {
	sizes := []int{0, 1, 60, 4095, 4096, 4097, 12_000, 70_000, 400_000, 2_000_000}
	n := sizes[w.r.IntN(len(sizes))]
	if n > 100_000 && w.r.IntN(4) > 0 {
		n %= 5000
	}
	body := kitchen.Noise(w.r.Uint64(), n)
	if w.r.IntN(4) == 0 { // holes
		clear(body[n/3 : n/3*2])
	}
	if w.r.IntN(6) == 0 {
		w.t.Xattrs(name, body, map[string]string{"user.a": "1", "user.b": strings.Repeat("v", w.r.IntN(3500)), "trusted.c": strings.Repeat("w", w.r.IntN(60))})
	} else {
		w.t.File(name, body)
	}
	w.files[name], w.used[name] = true, true
}

func (w *wear) remove(name string) {
	if name == "" {
		return
	}
	dir, base := path.Split(name)
	w.t.Add(tar.Header{Name: dir + ".wh." + base}, nil)
	delete(w.files, name)
	w.used[name] = true
}

func (w *wear) step() {
	switch w.r.IntN(12) {
	case 0, 1, 2, 3:
		w.put(w.name())
	case 4, 5:
		if n := w.some(); n != "" {
			w.put(n)
		}
	case 6:
		w.remove(w.some())
	case 7:
		if to := w.some(); to != "" {
			n := w.name()
			w.t.Link(n, to)
			w.files[n], w.used[n], w.used[to] = true, true, true
		}
	case 8:
		n := w.name()
		w.t.Symlink(n, strings.Repeat("x", []int{1, 59, 60, 61, 1000, 4095}[w.r.IntN(6)]))
		w.files[n], w.used[n] = true, true
	case 9:
		n := w.name()
		w.t.Dir(n)
		w.dirs = append(w.dirs, n)
	case 10:
		dir := w.dirs[w.r.IntN(len(w.dirs))]
		for range w.r.IntN(400) {
			w.names++
			n := path.Join(dir, fmt.Sprintf("%s%d", strings.Repeat("m", w.r.IntN(80)), w.names))
			w.t.File(n, nil)
			w.files[n], w.used[n] = true, true
		}
	case 11:
		for range w.r.IntN(60) {
			w.remove(w.some())
		}
	}
}

func (w *wear) layer() []byte {
	w.t, w.used = kitchen.New(), map[string]bool{}
	if !w.rootless {
		w.t.Add(tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	for range w.r.IntN(60) {
		w.step()
	}
	return w.t.Bytes()
}

// wearSource is an image of such layers.
func wearSource(t testing.TB, seed int) string {
	t.Helper()
	w := newWear(uint64(seed))
	var tars [][]byte
	for range 8 {
		tars = append(tars, w.layer())
	}
	return sourceOf(t, "wear", tars...)
}

// wearCases judges chains of such layers, on a small device, where what is free lies in pieces.
func wearCases(t *testing.T, verdict func(t *testing.T, dev *rawobd.Device, tree *flatten.Tree)) {
	chains := 4
	if os.Getenv("CONVHOST_LARGE") != "" {
		chains = 12
	}
	h := newHost(t)
	for seed := range chains {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			options := map[string]string{"vsize": "128M", "inode-ratio": "4K", "checksums": fmt.Sprint(seed%3 == 1)}
			convertChain(t, h, wearSource(t, seed), "", options).each(t, verdict)
		})
	}
}

// e2fsck finds nothing after any of many changes.
func TestE2fsckWear(t *testing.T) {
	fsck := judge.Tool(t, "e2fsck")
	wearCases(t, func(t *testing.T, dev *rawobd.Device, _ *flatten.Tree) {
		out, err := judge.Try("", fsck, "-fn", dev.File.Name())
		if fsckClean(t, out); err != nil {
			t.Error(err)
		}
	})
}
