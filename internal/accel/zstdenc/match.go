package zstdenc

import (
	"math/bits"

	"github.com/convhost/convhost/internal/accel/look"
)

const (
	maxHashBits = 16
	minMatch    = 4
	firstMatch  = 4   // no match starts earlier: the distances of which a frame knows at its start are 1 and 4
	lastMatch   = 24  // none starts closer to the end of a block, so that all may read a little ahead
	patience    = 128 // bytes without a match before the search takes longer steps
)

// seq is literals followed by a match.
type seq struct {
	lit    uint32 // number of literals
	offset uint32 // distance + 3, or again
	length uint32 // of the match, less 3
}

// again is the offset of a match at the last distance; behind no literals, at the one before (RFC 8878, 3.1.1.5).
const again = 1

// matcher finds sequences greedily. It looks up each position in a table that tells where the same six bytes were last, by
// their hash, and takes what it finds. The longer it finds nothing, the more positions it leaves out.
type matcher struct {
	table      [1 << maxHashBits]uint32 // position by hash; 0 if there was none, which is as good a position as others
	mask       uint16                   // of hashes: the part of table that is in use
	rep1, rep2 int                      // the last distance and the one before
	lits       []byte                   // literals of all sequences, and those that follow the last one
	seqs       []seq
}

// reset prepares for a buffer of n bytes.
func (m *matcher) reset(n int) {
	size := bits.Len(uint(n)) - 1
	size = min(max(size, 8), maxHashBits)
	m.mask = 1<<size - 1
	clear(m.table[:1<<size])
	m.rep1, m.rep2 = 1, 4
	if m.lits == nil {
		m.lits = make([]byte, 0, maxBlock+16)
		m.seqs = make([]seq, 0, maxBlock/minMatch)
	}
}

func hash(v uint64, mask uint16) uint16 {
	const prime = 0xcf1bbcdcbf9b // of six bytes
	return uint16(v*(prime<<16)>>48) & mask
}

// find sets lits and seqs to those of src[from:to]. Matches may refer to everything before in src.
func (m *matcher) find(src []byte, from, to int) {
	m.lits, m.seqs = m.lits[:0], m.seqs[:0]
	end := to - lastMatch
	done := from // what is before is in sequences
	for at := max(from, firstMatch); at < end; {
		hit := m.search(src, at, end)
		at = hit.at
		if at >= end {
			break
		}
		n, back := minMatch, 0
		if x := look.Diff(src, hit.ref+minMatch, at+minMatch); x != 0 {
			n += bits.TrailingZeros64(x) / 8
		} else {
			n += 8 + look.Common(src, hit.ref+minMatch+8, at+minMatch+8, to)
		}
		if hit.ref >= 8 { // then up to 8 bytes before may be equal as well
			back = min(bits.LeadingZeros64(look.Diff(src, hit.ref-8, at-8))/8, at-done)
		}
		offset := uint32(again)
		switch {
		case !hit.again:
			m.rep1, m.rep2 = at-hit.ref, m.rep1
			offset = uint32(m.rep1) + 3
		case back == at-done: // without literals it would be the other distance
			back--
		}
		lit := at - back - done
		m.copyLiterals(src, done, lit)
		m.seqs = append(m.seqs, seq{uint32(lit), offset, uint32(n + back - 3)})
		done = at + n
		if done >= end {
			break
		}
		m.table[hash(look.Load64(src, at+2), m.mask)] = uint32(at + 2)
		m.table[hash(look.Load64(src, done-2), m.mask)] = uint32(done - 2)
		done = m.repeats(src, done, end, to)
		at = done
	}
	m.lits = append(m.lits, src[done:to]...)
}

// found is a match of at least four bytes.
type found struct {
	at, ref int  // where, and where the same bytes are
	again   bool // at the last distance
}

// search returns the first match from position at on. If there is none, its position is end or later.
func (m *matcher) search(src []byte, at, end int) found {
	t, mask, rep := &m.table, m.mask, m.rep1
	for step := 2; ; step++ {
		for stop := min(end, at+patience); at < stop; at += step {
			v := look.Load64(src, at)
			h := hash(v, mask)
			ref := int(t[h])
			t[h] = uint32(at)
			v1 := look.Load64(src, at+1)
			h = hash(v1, mask)
			ref1 := int(t[h])
			t[h] = uint32(at + 1)
			if look.Load32(src, at+2-rep) == uint32(v>>16) {
				return found{at + 2, at + 2 - rep, true}
			}
			if look.Load32(src, ref) == uint32(v) {
				return found{at, ref, false}
			}
			if look.Load32(src, ref1) == uint32(v1) {
				return found{at + 1, ref1, false}
			}
		}
		if at >= end {
			return found{at: at}
		}
	}
}

// repeats takes matches at the last distance but one, as long as one follows the other, and returns where they end.
func (m *matcher) repeats(src []byte, at, end, to int) int {
	for at < end {
		v := look.Load64(src, at)
		if look.Load32(src, at-m.rep2) != uint32(v) {
			break
		}
		n := minMatch
		if x := look.Diff(src, at-m.rep2+minMatch, at+minMatch); x != 0 {
			n += bits.TrailingZeros64(x) / 8
		} else {
			n += 8 + look.Common(src, at-m.rep2+minMatch+8, at+minMatch+8, to)
		}
		m.rep1, m.rep2 = m.rep2, m.rep1
		m.table[hash(v, m.mask)] = uint32(at)
		m.seqs = append(m.seqs, seq{0, again, uint32(n - 3)})
		at += n
	}
	return at
}

// copyLiterals appends src[at:at+n]. There are lastMatch bytes behind at, and a few are copied always.
func (m *matcher) copyLiterals(src []byte, at, n int) {
	const few = 16
	if n > few {
		m.lits = append(m.lits, src[at:at+n]...)
		return
	}
	k := len(m.lits)
	*(*[few]byte)(m.lits[k : k+few]) = [few]byte(src[at : at+few : len(src)])
	m.lits = m.lits[:k+n]
}
