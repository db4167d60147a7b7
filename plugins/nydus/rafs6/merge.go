package rafs6

import (
	"bytes"
	"unicode/utf8"

	"github.com/convhost/convhost/abi"
)

const opaqueName = ".wh..wh..opq"

// MergeOptions say how layers become one image. The zero value merges exactly as upstream does.
type MergeOptions struct {
	// Correct merges as extracting the layers would: whiteouts of the lowest layer disappear, and a directory that a layer
	// only implies (see State) leaves what lower layers have there as it is, following a symbolic link. A directory that
	// replaced something else in its layer hides what lower layers have there.
	Correct bool
	// Prefetch is as in Options.
	Prefetch []string
}

// Merger lays layers over each other, lowest first.
type Merger struct {
	o    MergeOptions
	t    *Tree
	n    int
	last uint32 // flags of the last layer
}

// NewMerger starts an image.
func NewMerger(o MergeOptions) *Merger { return &Merger{o: o} }

// Add lays a layer over what is there. blobID is the hex SHA-256 of the layer's blob, unused if it has no data. layer is only read.
//
// ErrInvalid: layers of different chunk sizes. ErrUnsupported: a layer of several blobs (chunk dictionary).
func (m *Merger) Add(layer *Tree, blobID string) error {
	if len(layer.blobs) > 1 {
		return unsupported(formatBoot, -1, "layer with a chunk dictionary")
	}
	if m.t == nil {
		m.t = newTree(layer.chunkSize)
		m.t.flags = layer.flags
	}
	if m.t.chunkSize != layer.chunkSize || m.t.flags&flagExplicitIDs != layer.flags&flagExplicitIDs {
		return abi.Errorf(abi.ErrInvalid, "rafs v6: layer %d has chunk size %d, flags %#x; the layers below %d, %#x", m.n,
			layer.chunkSize, layer.flags, m.t.chunkSize, m.t.flags)
	}
	m.last = layer.flags
	c := &layerCopy{t: m.t, src: layer, o: m.o, lowest: m.n == 0}
	if err := c.run(blobID); err != nil {
		return err
	}
	m.n++
	return nil
}

// AddBootstrap is Add for a layer's bootstrap. state is the layer's (see [Tree.State]), or empty. Of the lowest layer no copy is
// made: its tree becomes the image's.
//
// Errors are those of Open, ApplyState and Add.
func (m *Merger) AddBootstrap(boot, state []byte, blobID string) error {
	l := &loader{data: boot, strict: true}
	if err := l.load(); err != nil {
		return err
	}
	if len(state) > 0 {
		if err := l.t.ApplyState(state); err != nil {
			return err
		}
	}
	if m.t == nil && len(l.t.blobs) <= 1 && textOK([]byte(blobID)) && len(blobID) <= 64 {
		m.take(l.t, blobID)
		return nil
	}
	l.t.seal()
	return m.Add(l.t, blobID)
}

// take makes a loaded tree the image's.
func (m *Merger) take(layer *Tree, blobID string) {
	for k := range layer.blobs {
		layer.blobs[k].ID = blobID
		layer.blobs[k].Features &^= FeatInlinedMeta
	}
	r := layer.nodes.at(root)
	r.flags = r.flags&nodeBare | nodeImplied // as in a new tree
	for n := int32(1); n < layer.nodes.n; n++ {
		v := layer.nodes.at(n)
		v.flags &^= nodeFresh
		if m.o.Correct {
			if _, _, ok := whiteout(layer.text.get(v.name, int(v.nlen))); ok {
				v.flags |= nodeDead
			}
		}
	}
	m.t, m.last = layer, layer.flags
	m.n++
}

// Finish returns the merged image. Its blob table holds the blobs that are still in use, in the order of their first use
// in the walk, as upstream writes it. No layers are ErrInvalid.
func (m *Merger) Finish() (*Tree, error) {
	if m.t == nil {
		return nil, abi.Errorf(abi.ErrInvalid, "rafs v6: no layers to merge")
	}
	t := m.t
	t.seal()
	t.orderBlobs()
	t.flags = m.last | flagHasXattr
	t.setInlinedDigest()
	if err := t.SetPrefetch(m.o.Prefetch); err != nil {
		return nil, err
	}
	m.t = nil
	return t, nil
}

// orderBlobs keeps the blobs in use, in the order of their first use.
func (t *Tree) orderBlobs() {
	to := make([]int32, len(t.blobs))
	var blobs []Blob
	moved := false
	for _, n := range t.order {
		i := t.inodeOf(n)
		if !i.isReg() {
			continue
		}
		if len(blobs) == len(t.blobs) {
			break // there are no more
		}
		for k := range i.count {
			if b := t.chunks.at(int32(*t.refs.at(int32(i.data + k)))).blob; to[b] == 0 {
				blobs = append(blobs, t.blobs[b])
				to[b] = int32(len(blobs))
				moved = moved || int(b)+1 != len(blobs)
			}
		}
	}
	if !moved && len(blobs) == len(t.blobs) {
		return
	}
	for k := int32(0); k < t.chunks.n; k++ {
		if c := t.chunks.at(k); to[c.blob] > 0 {
			c.blob = uint16(to[c.blob] - 1)
		}
	}
	t.blobs = blobs
}

// layerCopy copies one layer into the merged tree.
type layerCopy struct {
	t, src *Tree
	o      MergeOptions
	lowest bool
	blob   uint16
	at     []int32          // node of src -> node of t, -1 if gone
	inodes map[int32]int32  // hard links: inode of src -> inode of t
	chunks []int32          // chunk of src -> chunk of t + 1
	known  map[uint32]int32 // the same blob again: chunk index -> chunk of t
}

func (c *layerCopy) run(blobID string) error {
	if len(c.src.blobs) > 0 {
		if err := c.addBlob(blobID); err != nil {
			return err
		}
	}
	c.at = make([]int32, c.src.nodes.n)
	c.inodes = map[int32]int32{}
	c.chunks = make([]int32, c.src.chunks.n)
	if c.lowest || !c.o.Correct || c.src.nodes.at(root).flags&nodeImplied == 0 {
		ino, err := c.copyInode(c.src.nodes.at(root).inode)
		if err != nil {
			return err
		}
		if r := c.t.nodes.at(root); r.flags&nodeBare != 0 {
			c.t.adopt(root) // the old inode knows what is below it
		}
		c.t.nodes.at(root).inode = ino
	}
	for _, d := range c.src.dirs {
		if err := c.dir(d); err != nil {
			return err
		}
	}
	return nil
}

// addBlob enters the layer's blob under its real id, or finds it if an equal layer came before.
func (c *layerCopy) addBlob(id string) error {
	b := c.src.blobs[0]
	b.ID = id
	b.Features &^= FeatInlinedMeta
	if !textOK([]byte(id)) || len(id) > 64 {
		return abi.Errorf(abi.ErrInvalid, "rafs v6: blob id %q: want up to 64 printable characters", id)
	}
	for k := range c.t.blobs {
		if c.t.blobs[k].ID != id {
			continue
		}
		if c.t.blobs[k] != b {
			return abi.Errorf(abi.ErrCorrupt, "rafs v6: two layers describe blob %s differently", id)
		}
		c.blob, c.known = uint16(k), map[uint32]int32{}
		for n := int32(0); n < c.t.chunks.n; n++ {
			if v := c.t.chunks.at(n); int(v.blob) == k {
				c.known[v.index] = n
			}
		}
		return nil
	}
	if len(c.t.blobs) >= 1<<16-1 {
		return fail(abi.ErrLimit, formatTree, -1, "layers", dec(len(c.t.blobs)), "fewer than 65535")
	}
	c.blob = uint16(len(c.t.blobs))
	c.t.blobs = append(c.t.blobs, b)
	return nil
}

// whiteout returns what a name hides; opaque is true if it hides everything.
func whiteout(name []byte) (hidden []byte, opaque, ok bool) {
	if !bytes.HasPrefix(name, []byte(".wh.")) || !utf8.Valid(name) {
		return nil, false, false
	}
	return name[4:], string(name) == opaqueName, true
}

// dir applies the whiteouts of one directory, then its other names.
func (c *layerCopy) dir(d int32) error {
	base := c.at[d]
	keep := c.lowest && !c.o.Correct
	kids := c.src.children(c.src.inodeOf(d))
	if base < 0 {
		for _, k := range kids {
			c.at[k] = -1
		}
		return nil
	}
	if !keep && !c.lowest {
		for _, k := range kids {
			if hidden, opaque, ok := whiteout(c.src.name(k)); opaque {
				base = c.t.empty(base)
			} else if ok {
				c.t.remove(base, hidden)
			}
		}
	}
	for _, k := range kids {
		if _, _, ok := whiteout(c.src.name(k)); ok && !keep {
			c.at[k] = -1
			continue
		}
		var err error
		if c.at[k], err = c.name(base, k); err != nil {
			return err
		}
	}
	return nil
}

// name enters name k of the layer below base.
func (c *layerCopy) name(base, k int32) (int32, error) {
	v := c.src.nodes.at(k)
	name := c.src.name(k)
	if c.o.Correct && v.flags&nodeImplied != 0 {
		if old, _ := c.t.find(base, name); old >= 0 {
			switch c.t.inodeOf(old).mode & modeType {
			case modeDir:
				return old, nil
			case modeLink:
				n, err := c.t.resolve(base, string(name), true)
				if err != nil {
					return 0, c.entryError(k, err)
				}
				return n, nil
			default:
				return 0, c.entryError(k, errNotDir)
			}
		}
	}
	ino, err := c.copyInode(v.inode)
	if err != nil {
		return 0, err
	}
	keep := !c.o.Correct || v.flags&nodeFresh == 0
	n, err := c.t.put(base, name, ino, v.flags&nodeImplied, keep)
	if err != nil {
		return 0, c.entryError(k, err)
	}
	return n, nil
}

func (c *layerCopy) entryError(k int32, err error) error {
	return &abi.FormatError{Class: abi.ClassOf(err), Format: formatTree, Entry: c.src.path(k), Off: -1,
		Field: "directory that the layer implies: " + err.Error()}
}

// copyInode copies an inode once for all its names.
func (c *layerCopy) copyInode(n int32) (int32, error) {
	i := *c.src.inodes.at(n)
	if i.isReg() && i.nlink > 1 {
		if ino, ok := c.inodes[n]; ok {
			return ino, nil
		}
	}
	ok := true
	if i.mode&modeType == modeLink {
		i.data, ok = c.t.text.add(c.src.target(&i))
	}
	if ok && i.xattrLen > 0 {
		i.xattr, ok = c.t.text.add(c.src.text.get(i.xattr, int(i.xattrLen)))
	}
	if !ok {
		return 0, errFull
	}
	if i.isReg() {
		start := uint32(c.t.refs.n)
		for k := range i.count {
			c.t.refs.add(c.copyChunk(*c.src.refs.at(int32(i.data + k))))
		}
		i.data = start
	}
	ino := c.t.inodes.add(i)
	if i.isReg() && i.nlink > 1 {
		c.inodes[n] = ino
	}
	return ino, nil
}

func (c *layerCopy) copyChunk(n uint32) uint32 {
	if k := c.chunks[n]; k > 0 {
		return uint32(k - 1)
	}
	v := *c.src.chunks.at(int32(n))
	k, ok := c.known[v.index]
	if !ok {
		v.blob = c.blob
		k = c.t.chunks.add(v)
	}
	c.chunks[n] = k + 1
	return uint32(k)
}
