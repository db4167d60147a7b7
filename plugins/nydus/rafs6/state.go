package rafs6

import (
	"encoding/binary"

	"github.com/convhost/convhost/abi"
)

// The state of a layer is what a merge must know and a bootstrap cannot say: which directories the layer only implies,
// and which ones replaced something else in the layer, so that nothing of the lower layers may be left in them.
//
// It also tells a bootstrap that can be an image's as it is from others, for Single.
//
//	"RV6S" 2, SHA-256 of the layer's bootstrap, or zeros if the layer has whiteouts; then for each such path in the
//	order of the walk: uvarint bytes shared with the path before, uvarint bytes that follow, times 2, plus 1 for the
//	second kind; these bytes. The root's path is empty.

const (
	stateMagic = "RV6S\x02"
	stateHead  = len(stateMagic) + 32
)

// State returns the implied and replaced directories of a layer from a Builder, for ApplyState and Single. boot is the
// SHA-256 of the bootstrap that WriteTail wrote, or zero if that is not known. It is small: most layers have no such directories.
func (t *Tree) State(boot [32]byte) []byte {
	for _, n := range t.order {
		if _, _, ok := whiteout(t.name(n)); ok {
			boot = [32]byte{}
			break
		}
	}
	p := append([]byte(stateMagic), boot[:]...)
	prev := ""
	put := func(path string, kind int) {
		same := 0
		for same < len(path) && same < len(prev) && path[same] == prev[same] {
			same++
		}
		p = binary.AppendUvarint(p, uint64(same))
		p = binary.AppendUvarint(p, uint64(2*(len(path)-same)+kind))
		p = append(p, path[same:]...)
		prev = path
	}
	for _, d := range t.dirs {
		switch f := t.nodes.at(d).flags; {
		case f&nodeImplied != 0:
			put(t.path(d), 0)
		case f&nodeFresh != 0:
			put(t.path(d), 1)
		}
	}
	return p
}

// ImpliedDirs returns the paths of the implied directories, "" for the root, in the order of the walk.
func (t *Tree) ImpliedDirs() []string {
	var out []string
	for _, d := range t.dirs {
		if t.nodes.at(d).flags&nodeImplied != 0 {
			out = append(out, t.path(d))
		}
	}
	return out
}

// ApplyState marks the implied and replaced directories of the layer whose State it is. State that names something else is ErrCorrupt.
func (t *Tree) ApplyState(p []byte) error {
	bad := func(got string) error {
		return fail(abi.ErrCorrupt, "rafs v6 layer state", -1, "content", got, "the state of this layer")
	}
	if len(p) < stateHead || string(p[:len(stateMagic)]) != stateMagic {
		return bad("no state")
	}
	prev := ""
	for p = p[stateHead:]; len(p) > 0; {
		same, n := binary.Uvarint(p)
		if n <= 0 || same > uint64(len(prev)) {
			return bad("cut off")
		}
		p = p[n:]
		more, n := binary.Uvarint(p)
		flag := [...]uint8{nodeImplied, nodeFresh}[more&1]
		more /= 2
		if n <= 0 || more > uint64(len(p)-n) || same+more > MaxDepth*(MaxName+1) {
			return bad("cut off")
		}
		prev = prev[:same] + string(p[n:n+int(more)])
		p = p[n+int(more):]
		d := t.exact(prev)
		if d < 0 || !t.inodeOf(d).isDir() {
			return bad("naming " + quote(prev))
		}
		t.nodes.at(d).flags |= flag
	}
	return nil
}
