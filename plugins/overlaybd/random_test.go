package overlaybd_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/test/kitchen"
)

// randomEntry returns what adds an entry. Names often meet: files of all sizes, directories in the place of files and the other way
// round, links, whiteouts.
func randomEntry(r *rand.Rand) func(*kitchen.Tar) {
	name := func() string {
		var parts []string
		for range 1 + r.IntN(3) {
			parts = append(parts, string(rune('a'+r.IntN(4))))
		}
		return strings.Join(parts, "/")
	}
	n, seed := name(), r.Uint64()
	switch r.IntN(9) {
	case 0, 1:
		return func(t *kitchen.Tar) { t.Dir(n) }
	case 2, 3, 4:
		body := make([]byte, []int{0, 1, 59, 4096, 4097, 40_000, 300_000}[r.IntN(7)])
		if r.IntN(3) > 0 {
			body = kitchen.Noise(seed, len(body))
		}
		return func(t *kitchen.Tar) { t.File(n, body) }
	case 5:
		to := strings.Repeat(name()+"/", 1+r.IntN(30)) + "x"
		return func(t *kitchen.Tar) { t.Symlink(n, to) }
	case 6:
		to := name()
		return func(t *kitchen.Tar) { t.Link(n, to) }
	case 7:
		hidden := n[:len(n)-1] + ".wh." + n[len(n)-1:]
		return func(t *kitchen.Tar) { t.Add(tar.Header{Typeflag: tar.TypeReg, Name: hidden}, nil) }
	}
	if r.IntN(2) == 0 {
		return func(t *kitchen.Tar) { t.Add(tar.Header{Typeflag: tar.TypeReg, Name: n + "/.wh..wh..opq"}, nil) }
	}
	body, value := kitchen.Text(seed, r.IntN(9000)), strings.Repeat("v", r.IntN(700))
	return func(t *kitchen.Tar) { t.Xattrs(n, body, map[string]string{"user.x": value}) }
}

// randomLayer makes a layer for others. Hardly any list of such entries is a layer, so those that do not fit are left out, but
// for a few.
func randomLayer(r *rand.Rand, below [][]byte) []byte {
	var kept []func(*kitchen.Tar)
	pack := func() []byte {
		t := kitchen.New()
		for _, add := range kept {
			add(t)
		}
		return t.Bytes()
	}
	for range 1 + r.IntN(25) {
		kept = append(kept, randomEntry(r))
		if r.IntN(200) > 0 && fits(append(below[:len(below):len(below)], pack())) != nil {
			kept = kept[:len(kept)-1]
		}
	}
	return pack()
}

// fits tells whether the flattener takes a layer upon others; what it refuses the plugin must refuse, too.
func fits(tars [][]byte) error {
	tree := flatten.New(flatten.Options{})
	for _, b := range tars {
		tree.BeginLayer()
		if _, err := tree.ApplyTar(context.Background(), layer.NewReader(bytes.NewReader(b), layer.Limits{})); err != nil {
			return err
		}
	}
	return nil
}

// Any layers: the image holds what the flattener makes of them, layer by layer, is sound, and refuses what it refuses.
func TestRandomImages(t *testing.T) {
	images := 60
	if testing.Short() {
		images = 20
	}
	refused := 0
	for seed := range images {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		options := map[string]string{"vsize": "64M", "mkfs": fmt.Sprint(seed%5 != 0), "disable-sparse": fmt.Sprint(seed%7 == 0), "checksums": fmt.Sprint(seed%3 == 0)}
		im, tars := &image{}, [][]byte{}
		if seed%5 == 0 {
			tars = append(tars, kitchen.New().Bytes()) // the base layer
		}
		for k := 0; k < 4; k++ {
			b := randomLayer(r, tars)
			want := fits(append(tars[:len(tars):len(tars)], b))
			_, err := im.convert(b, options)
			if (want == nil) != (err == nil) {
				t.Fatalf("image %d, layer %d: %v, the flattener says %v", seed, k, err, want)
			}
			if want != nil {
				refused++
				break
			}
			tars = append(tars, b)
		}
		if len(im.parts) == 0 {
			continue
		}
		im.mustBeSound(t)
		im.mustHold(t, tars...)
		if t.Failed() {
			t.Fatalf("image %d", seed)
		}
	}
	t.Logf("%d images, in %d a layer was refused", images, refused)
}
