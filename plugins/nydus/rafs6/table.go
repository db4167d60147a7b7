package rafs6

// A tree of a million files must not be copied each time it grows, so the arrays behind it are lists of segments:
// elements never move, and growing allocates one segment.

const segBits = 10

// table is a growing array of T. Elements are addressed by int32 numbers in the order they were added.
type table[T any] struct {
	segs []*[1 << segBits]T
	n    int32
}

func (t *table[T]) at(i int32) *T { return &t.segs[uint32(i)>>segBits][uint32(i)&(1<<segBits-1)] }

func (t *table[T]) add(v T) int32 {
	p, i := t.next()
	*p = v
	return i
}

// next adds a zero element to be filled in place: large ones are dear to copy.
func (t *table[T]) next() (*T, int32) {
	if int(t.n)>>segBits == len(t.segs) {
		t.segs = append(t.segs, new([1 << segBits]T))
	}
	i := t.n
	t.n++
	return t.at(i), i
}

// drop takes the last element back.
func (t *table[T]) drop() {
	t.n--
	*t.at(t.n) = *new(T)
}

const textBits = 18 // an item never crosses a segment; the largest (an inode's xattrs) is 262136 bytes

// text holds names, link targets and xattrs. A reference is segment<<18 | position.
type text struct{ segs [][]byte }

// add copies p and returns its reference; ok is false when 4 GiB are used up.
func (t *text) add(p []byte) (ref uint32, ok bool) {
	k := len(t.segs) - 1
	if k < 0 || len(t.segs[k])+len(p) > 1<<textBits {
		if k++; k >= 1<<(32-textBits) {
			return 0, false
		}
		t.segs = append(t.segs, make([]byte, 0, max(len(p), min(4096<<min(k, 6), 1<<textBits))))
	}
	pos := len(t.segs[k])
	t.segs[k] = append(t.segs[k], p...)
	return uint32(k)<<textBits | uint32(pos), true
}

// get returns n bytes at ref; they must not be changed.
func (t *text) get(ref uint32, n int) []byte {
	if n == 0 {
		return nil
	}
	pos := ref & (1<<textBits - 1)
	return t.segs[ref>>textBits][pos : int(pos)+n : int(pos)+n]
}
