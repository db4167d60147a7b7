package rafs6

import (
	"bytes"
	"math/rand/v2"
	"slices"

	"github.com/convhost/convhost/abi"
)

// Tree is one file system: the contents of a bootstrap without addresses. It comes from [Builder.Finish], [Open] or
// [Merger.Finish], and is written with [Tree.Bootstrap] or [Tree.WriteTail]. A file costs about 250 bytes.
//
// Names and inodes are separate: hard links are names of one inode. A Tree is used from one goroutine.
type Tree struct {
	nodes  table[node]
	inodes table[inode]
	chunks table[chunk]
	refs   table[uint32] // chunk numbers of regular files, each file's in a row
	text   text

	seed  uint64 // of the index, and its odd multiplier
	mult  uint64
	index []uint64 // open addressing over (parent, name), see index.go
	used  int      // slots of index that are not empty

	sorted int32 // nodes before this one were added in the order of their names in each directory

	order []int32 // after seal: every name but the root in the order of the walk (2.4)
	dirs  []int32 // after seal: directories, each before those below it; their children lie in order in this order

	blobs     []Blob
	flags     uint32
	chunkSize uint32
	prefetch  []int32
	fresh     bool // from a Builder: blobs[0] still lacks what WriteTail finds out
}

// Blob is one data blob of an image: an entry of the blob table (5.2) and its device slot.
type Blob struct {
	ID               string // hex SHA-256 of the blob; in a layer's own bootstrap 64 times "x"
	ChunkCount       uint32
	Codec            abi.Codec  // of its chunks
	Digest           abi.Digest // of its chunks
	Features         uint32     // Feat… bits
	CompressedSize   uint64
	UncompressedSize uint64 // each chunk rounded up to 4096
	TocSize          uint32
	TocDigest        [32]byte
	MetaCodec        abi.Codec // of the chunk-info array
	MetaOffset       uint64    // of the chunk-info array in the blob
	MetaStored       uint64    // its bytes as stored
	MetaSize         uint64    // its bytes decompressed
}

// Chunk is one distinct chunk of a blob.
type Chunk struct {
	Digest     [32]byte
	Blob       int    // number in Tree.Blobs
	Index      uint32 // number in the blob
	Offset     int64  // in the blob
	Stored     uint32 // bytes in the blob
	Raw        uint32 // bytes after decompression
	Expanded   int64  // position in the uncompressed, aligned expansion
	Compressed bool
	HasCRC     bool
	CRC32C     uint32
}

type node struct {
	name   uint32
	parent int32
	inode  int32
	nlen   uint8
	flags  uint8
	depth  uint16
}

const (
	nodeDead    = 1 // replaced or removed; whatever is below it is gone, too
	nodeImplied = 2 // a directory that the layer uses but does not list
	nodeFresh   = 4 // a directory that replaced something else in its layer, and with it all lower content
	nodeBare    = 8 // a directory whose names the index does not hold yet, see adopt
)

type inode struct {
	size, mtime          int64
	seq                  uint64 // entry that brought it (Builder)
	mode, uid, gid, rdev uint32
	mtimeNs, nlink       uint32
	data, count          uint32 // directory: children in order; regular: chunk refs; symlink: text
	xattr, xattrLen      uint32 // text: encoded attributes without the ibody header
	nid, blk, ino        uint32 // placement: offset/32, data block, inode number
	layout               uint8
}

func (i *inode) isDir() bool { return i.mode&modeType == modeDir }
func (i *inode) isReg() bool { return i.mode&modeType == modeReg }

type chunk struct {
	digest                  [32]byte
	offset, expanded, inode uint64 // inode: offset in the file that used it last
	stored, raw, crc, index uint32
	flags                   uint32
	blob                    uint16
	used                    bool
}

const root = int32(0)

// newTree returns a tree with an implied root directory 0755.
func newTree(chunkSize uint32) *Tree {
	t := &Tree{seed: rand.Uint64(), mult: rand.Uint64() | 1, chunkSize: chunkSize}
	t.inodes.add(inode{mode: modeDir | 0o755})
	t.nodes.add(node{flags: nodeImplied})
	return t
}

// Blobs returns the blob table. It must not be changed.
func (t *Tree) Blobs() []Blob { return t.blobs }

// ChunkSize returns the bytes of a full chunk.
func (t *Tree) ChunkSize() int { return int(t.chunkSize) }

// Names returns the number of names, root included.
func (t *Tree) Names() int { return len(t.order) + 1 }

func (t *Tree) name(n int32) []byte {
	v := t.nodes.at(n)
	return t.text.get(v.name, int(v.nlen))
}

func (t *Tree) inodeOf(n int32) *inode { return t.inodes.at(t.nodes.at(n).inode) }

func (t *Tree) target(i *inode) []byte { return t.text.get(i.data, int(i.count)) }

// path returns the path of n relative to the root.
func (t *Tree) path(n int32) string {
	var parts [][]byte
	for ; n != root; n = t.nodes.at(n).parent {
		parts = append(parts, t.name(n))
	}
	slices.Reverse(parts)
	return string(bytes.Join(parts, []byte("/")))
}

// Chunk returns chunk number n of the chunk table.
func (t *Tree) chunk(n uint32) Chunk {
	c := t.chunks.at(int32(n))
	return Chunk{Digest: c.digest, Blob: int(c.blob), Index: c.index, Offset: int64(c.offset), Stored: c.stored, Raw: c.raw,
		Expanded: int64(c.expanded), Compressed: c.flags&chunkCompressed != 0, HasCRC: c.flags&chunkHasCRC != 0, CRC32C: c.crc}
}

// seal fixes the order of the walk and what follows from it: children, link counts, inode numbers. Names that are
// not reachable any more drop out. It is called again after each change.
func (t *Tree) seal() {
	n := t.nodes.n
	start := make([]uint32, n+1)
	for i := int32(1); i < n; i++ {
		if v := t.nodes.at(i); v.flags&nodeDead == 0 {
			start[v.parent+1]++
		}
	}
	for i := int32(0); i < n; i++ {
		start[i+1] += start[i]
	}
	kids := make([]int32, start[n])
	fill := slices.Clone(start[:n])
	for i := int32(1); i < n; i++ {
		if v := t.nodes.at(i); v.flags&nodeDead == 0 {
			kids[fill[v.parent]] = i
			fill[v.parent]++
		}
	}
	fill = nil
	for i := int32(0); i < t.inodes.n; i++ {
		v := t.inodes.at(i)
		v.nlink, v.ino = 0, 0
	}
	t.order, t.dirs = make([]int32, 0, len(kids)), t.dirs[:0]
	t.inodes.at(t.nodes.at(root).inode).ino = 1
	var spare []int32
	for stack := []int32{root}; len(stack) > 0; {
		d := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		ks := kids[start[d]:start[d+1]]
		spare = t.sortNames(ks, spare)
		stack = t.sealDir(d, ks, stack)
	}
}

// sortNames sorts the names of one directory, which are in the order in which they were added. spare is for its own use.
func (t *Tree) sortNames(ks, spare []int32) []int32 {
	if len(ks) == 0 || ks[len(ks)-1] < t.sorted {
		return spare
	}
	byName := func(a, b int32) int { return bytes.Compare(t.name(a), t.name(b)) }
	cut, _ := slices.BinarySearch(ks, t.sorted)
	slices.SortFunc(ks[cut:], byName)
	spare = append(spare[:0], ks[cut:]...)
	for k, old, added := len(ks)-1, cut-1, len(spare)-1; added >= 0; k-- {
		if old >= 0 && byName(ks[old], spare[added]) > 0 {
			ks[k] = ks[old]
			old--
		} else {
			ks[k] = spare[added]
			added--
		}
	}
	return spare
}

// sealDir numbers the children of one directory and pushes its directories so that the first comes off first.
func (t *Tree) sealDir(d int32, ks, stack []int32) []int32 {
	dir := t.inodeOf(d)
	dir.data, dir.count, dir.nlink = uint32(len(t.order)), uint32(len(ks)), 2
	t.dirs = append(t.dirs, d)
	for _, k := range ks {
		t.order = append(t.order, k)
		v := t.nodes.at(k)
		i := t.inodes.at(v.inode)
		switch {
		case i.isReg():
			i.nlink++
		case i.isDir():
			dir.nlink++
		case i.nlink > 0: // hard link to something that is not a regular file: an equal inode of its own
			v.inode = t.inodes.add(*i)
			i = t.inodes.at(v.inode)
			i.ino = 0
		default:
			i.nlink = 1
		}
		if i.ino == 0 {
			i.ino = uint32(len(t.order)) + 1
		}
	}
	for j := len(ks) - 1; j >= 0; j-- {
		if t.inodeOf(ks[j]).isDir() {
			stack = append(stack, ks[j])
		}
	}
	return stack
}

// children returns the children of a directory after seal.
func (t *Tree) children(i *inode) []int32 { return t.order[i.data : i.data+i.count] }
