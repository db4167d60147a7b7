package zstdenc

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// codes are those of one sequence.
type codes struct{ lit, offset, length uint8 }

// How a table is described (RFC 8878, 3.1.1.3.2.1).
const (
	modePredefined = iota
	modeSingle     // one symbol
	modeTable
	modeRepeat
)

// maxLogs are the sizes that tables may have: of literal lengths, offsets, match lengths.
var maxLogs = [3]uint{9, 8, 9}

// appendSequences appends the sequences section of a block (RFC 8878, 3.1.1.3.2).
func (e *Encoder) appendSequences(dst []byte) []byte {
	n := len(e.seqs)
	switch {
	case n < 128:
		dst = append(dst, byte(n))
	case n < 0x7f00:
		dst = append(dst, byte(n>>8)+128, byte(n))
	default:
		dst = append(dst, 255, byte(n-0x7f00), byte((n-0x7f00)>>8))
	}
	if n == 0 {
		return dst
	}
	var count [3]counts
	e.findCodes(&count)
	modes := len(dst)
	dst = append(dst, 0)
	first := [3]uint8{e.codes[0].lit, e.codes[0].offset, e.codes[0].length}
	var use [3]*table
	for kind := range use {
		count[kind].finish(n)
		var mode byte
		dst, use[kind], mode = e.choose(dst, kind, &count[kind], first[kind])
		dst[modes] |= mode << (6 - 2*kind)
	}
	return e.appendBits(dst, use[0], use[1], use[2])
}

// findCodes sets codes and counts them.
func (e *Encoder) findCodes(count *[3]counts) {
	e.codes = slices.Grow(e.codes[:0], len(e.seqs))[:len(e.seqs)]
	for i, s := range e.seqs {
		c := codes{litCode(s.lit) & 63, uint8(bits.Len32(s.offset)-1) & 63, lenCode(s.length) & 63}
		count[0].n[c.lit]++
		count[1].n[c.offset]++
		count[2].n[c.length]++
		e.codes[i] = c
	}
}

// choose picks the cheapest table for codes of a kind and appends its description.
func (e *Encoder) choose(dst []byte, kind int, c *counts, first uint8) ([]byte, *table, byte) {
	fresh := &e.tables[kind][0]
	if fresh == e.known[kind] {
		fresh = &e.tables[kind][1]
	}
	if c.most == c.total && c.total > 2 {
		fresh.single(first)
		e.known[kind] = nil
		return append(dst, first), fresh, modeSingle
	}
	best, mode := e.known[kind], byte(modeRepeat)
	cost := best.cost(c)
	if p := predefined[kind].cost(c); p <= cost {
		best, mode, cost = predefined[kind], modePredefined, p
	}
	const header = 3 << 3 << 8 // what a description takes at least
	if c.entropy()+header < cost {
		fresh.normalize(c, c.tableLog(maxLogs[kind]))
		head := len(dst)
		dst = fresh.appendHeader(dst)
		if fresh.cost(c)+uint32(len(dst)-head)<<3<<8 < cost {
			fresh.build()
			e.known[kind] = fresh
			return dst, fresh, modeTable
		}
		dst = dst[:head]
	}
	if mode == modePredefined {
		e.known[kind] = nil
	}
	return dst, best, mode
}

// appendBits appends the sequences, the last one first. Each takes up to 26 bits of states and 56 of values.
func (e *Encoder) appendBits(dst []byte, lits, offsets, lengths *table) []byte {
	seqs, codes := e.seqs, e.codes[:len(e.seqs)]
	e.bits = slices.Grow(e.bits[:0], len(seqs)*11+32)
	out := e.bits[:cap(e.bits)]
	var w bitWriter
	last := len(seqs) - 1
	s, c := seqs[last], codes[last]
	w = w.add(values(s, c))
	inLits, inOffsets, inLengths := lits.first(c.lit), offsets.first(c.offset), lengths.first(c.length)
	for i := last - 1; i >= 0; i-- {
		w = w.flush(out)
		s, c = seqs[i], codes[i]
		w, inOffsets = w.step(offsets, inOffsets, c.offset)
		w, inLengths = w.step(lengths, inLengths, c.length)
		w, inLits = w.step(lits, inLits, c.lit)
		v, n := values(s, c)
		if w.n+n > 63 {
			w = w.flush(out)
		}
		w = w.add(v, n)
	}
	w = w.flush(out)
	w = w.add(uint64(inLengths), lengths.log).add(uint64(inOffsets), offsets.log).add(uint64(inLits), lits.log).add(1, 1)
	w = w.flush(out)
	if w.n > 0 {
		w.at++
	}
	return append(dst, out[:w.at]...)
}

// values returns the extra bits of a sequence, and how many they are.
func values(s seq, c codes) (v uint64, n uint) {
	n1, n2, n3 := uint(litBits[c.lit]), uint(lenBits[c.length]), uint(c.offset)
	v = uint64(s.lit&(1<<(n1&31)-1)) | uint64(s.length&(1<<(n2&31)-1))<<(n1&63) | uint64(s.offset&(1<<(n3&31)-1))<<((n1+n2)&63)
	return v, n1 + n2 + n3
}

// bitWriter writes bits, the lowest first.
type bitWriter struct {
	acc uint64
	n   uint // bits in acc
	at  int  // where acc belongs
}

// add adds the n low bits of v.
func (w bitWriter) add(v uint64, n uint) bitWriter {
	w.acc |= v & (1<<(n&63) - 1) << (w.n & 63)
	w.n += n
	return w
}

// flush writes whole bytes, so that up to 7 bits stay.
func (w bitWriter) flush(out []byte) bitWriter {
	binary.LittleEndian.PutUint64(out[w.at:w.at+8:len(out)], w.acc)
	w.at += int(w.n >> 3)
	w.acc >>= w.n &^ 7 & 63
	w.n &= 7
	return w
}

// step adds what the decoder needs to get from the state before symbol to state, and returns the former.
func (w bitWriter) step(t *table, state uint32, symbol uint8) (bitWriter, uint32) {
	s := t.steps[symbol&63]
	n := uint(state+s.bits) >> 16
	return w.add(uint64(state), n), uint32(t.next[uint(int32(state>>(n&31))+s.base)%(1<<maxTableLog)])
}
