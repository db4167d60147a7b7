package ext4

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c continues a raw CRC-32C register: neither the seed nor the result is inverted.
func crc32c(seed uint32, b []byte) uint32 { return ^crc32.Update(^seed, castagnoli, b) }

func crc32c32(seed, v uint32) uint32 {
	var b [4]byte
	le.PutUint32(b[:], v)
	return crc32c(seed, b[:])
}

var crc16Table = func() (t [256]uint16) {
	for i := range t {
		c := uint16(i)
		for range 8 {
			if c&1 != 0 {
				c = c>>1 ^ 0xA001
			} else {
				c >>= 1
			}
		}
		t[i] = c
	}
	return t
}()

// crc16 continues the CRC-16 (ANSI) of group descriptors.
func crc16(c uint16, b []byte) uint16 {
	for _, x := range b {
		c = c>>8 ^ crc16Table[byte(c)^x]
	}
	return c
}

// descSum is the checksum of a group descriptor; 0 without either checksum feature.
func (v *volume) descSum(group uint32, d []byte) uint32 {
	var g [4]byte
	le.PutUint32(g[:], group)
	switch {
	case v.metaCsum:
		c := crc32c(crc32c(v.seed, g[:]), d[:gdChecksum])
		c = crc32c(c, []byte{0, 0})
		return crc32c(c, d[gdChecksum+2:]) & 0xFFFF
	case v.gdtCsum:
		c := crc16(crc16(0xFFFF, v.sb[sbUUID:sbUUID+16]), g[:])
		c = crc16(c, d[:gdChecksum])
		if len(d) > 32 {
			c = crc16(c, d[gdChecksum+2:])
		}
		return uint32(c)
	}
	return 0
}

// inodeSeed starts the checksums of all blocks that belong to an inode.
func (v *volume) inodeSeed(ino, gen uint32) uint32 { return crc32c32(crc32c32(v.seed, ino), gen) }

// inodeSum is the checksum of raw, with its checksum fields taken as zero.
func (v *volume) inodeSum(ino uint32, raw []byte) uint32 {
	c := v.inodeSeed(ino, u32(raw, inGen))
	zero := []byte{0, 0}
	c = crc32c(c, raw[:inCsumLo])
	c = crc32c(c, zero)
	c = crc32c(c, raw[inCsumLo+2:goodOldIno])
	if len(raw) <= goodOldIno {
		return c & 0xFFFF
	}
	if u16(raw, inExtra) < 4 {
		return crc32c(c, raw[goodOldIno:]) & 0xFFFF
	}
	c = crc32c(c, raw[goodOldIno:inCsumHi])
	c = crc32c(c, zero)
	return crc32c(c, raw[inCsumHi+2:])
}

func (v *volume) sealInode(ino uint32, raw []byte) {
	if !v.metaCsum {
		return
	}
	c := v.inodeSum(ino, raw)
	put16(raw, inCsumLo, c)
	if len(raw) > goodOldIno && u16(raw, inExtra) >= 4 {
		put16(raw, inCsumHi, c>>16)
	}
}

// inodeSealed tells whether the checksum of raw is right. Inodes that are all zero have none.
func (v *volume) inodeSealed(ino uint32, raw []byte) bool {
	if !v.metaCsum {
		return true
	}
	c, got := v.inodeSum(ino, raw), u16(raw, inCsumLo)
	if len(raw) > goodOldIno && u16(raw, inExtra) >= 4 {
		got |= u16(raw, inCsumHi) << 16
	}
	return c == got || allZero(raw)
}

// blockSum is the checksum of a metadata block that carries its own, and where in the block it stands; at -1: none.
func (v *volume) blockSum(b *block) (sum uint32, at int) {
	p := b.data
	switch b.kind {
	case kindDirLeaf:
		if !hasDirTail(p) {
			return 0, -1
		}
		return crc32c(b.seed, p[:BlockSize-dirTailSize]), BlockSize - 4
	case kindIndex:
		co := indexOffset(p)
		if co < 0 {
			return 0, -1
		}
		limit, count := int(u16(p, co)), int(u16(p, co+2))
		tail := co + limit*8
		if count > limit || tail > BlockSize-8 {
			return 0, -1
		}
		c := crc32c(b.seed, p[:co+count*8])
		c = crc32c(c, p[tail:tail+4])
		return crc32c32(c, 0), tail + 4
	case kindExtents:
		tail := 12 + int(u16(p, 4))*12
		if tail > BlockSize-4 {
			return 0, -1
		}
		return crc32c(b.seed, p[:tail]), tail
	case kindXattr:
		var n [8]byte
		le.PutUint64(n[:], b.n)
		c := crc32c(crc32c(v.seed, n[:]), p[:16])
		c = crc32c32(c, 0)
		return crc32c(c, p[20:]), 16
	}
	return 0, -1
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if le.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
