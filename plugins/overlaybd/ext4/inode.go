package ext4

import (
	"fmt"
	"slices"

	"github.com/convhost/convhost/abi"
)

// inode is a copy of one inode's bytes; putInode writes it back.
type inode struct {
	num uint32
	raw []byte
}

func (n *inode) mode() uint32  { return u16(n.raw, inMode) }
func (n *inode) isDir() bool   { return n.mode()&ifMask == ifDir }
func (n *inode) links() uint32 { return u16(n.raw, inLinks) }
func (n *inode) flags() uint32 { return u32(n.raw, inFlags) }
func (n *inode) size() uint64  { return pair(n.raw, inSizeLo, inSizeHi) }
func (n *inode) gen() uint32   { return u32(n.raw, inGen) }
func (n *inode) uid() uint32   { return u16(n.raw, inUID) | u16(n.raw, inUIDHi)<<16 }
func (n *inode) gid() uint32   { return u16(n.raw, inGID) | u16(n.raw, inGIDHi)<<16 }
func (n *inode) acl() uint64   { return uint64(u32(n.raw, inFileACL)) | uint64(u16(n.raw, inACLHi))<<32 }
func (n *inode) extra() int {
	if len(n.raw) <= goodOldIno {
		return 0
	}
	return int(u16(n.raw, inExtra))
}

func (n *inode) setACL(b uint64) {
	put32(n.raw, inFileACL, uint32(b))
	put16(n.raw, inACLHi, uint32(b>>32))
}

func (n *inode) setLinks(l uint32) { put16(n.raw, inLinks, l) }
func (n *inode) setFlags(f uint32) { put32(n.raw, inFlags, f) }
func (n *inode) setSize(s uint64)  { putPair(n.raw, inSizeLo, inSizeHi, s) }

// sectors returns the 512-byte sectors that the inode counts as its own.
func (n *inode) sectors() uint64 {
	s := uint64(u32(n.raw, inBlocksLo)) | uint64(u16(n.raw, inBlocksHi))<<32
	if n.flags()&flagHugeFile != 0 {
		s *= BlockSize / 512
	}
	return s
}

// setBlocks counts blocks of BlockSize; where sectors do not fit the inode's 48 bits, blocks are counted.
func (n *inode) setBlocks(blocks uint64) {
	s := blocks * (BlockSize / 512)
	n.setFlags(n.flags() &^ flagHugeFile)
	if s >= 1<<48 {
		s = blocks
		n.setFlags(n.flags() | flagHugeFile)
	}
	put32(n.raw, inBlocksLo, uint32(s))
	put16(n.raw, inBlocksHi, uint32(s>>32))
}

// inodePos returns the block and the offset in it of an inode.
func (v *volume) inodePos(ino uint32) (blk uint64, off int, err error) {
	if ino == 0 || ino > v.inodeCount {
		return 0, 0, bad(-1, "inode number", ino, fmt.Sprintf("1 to %d", v.inodeCount))
	}
	g, i := (ino-1)/v.inodesPerGroup, (ino-1)%v.inodesPerGroup
	pos := uint64(i) * uint64(v.inodeSize)
	return v.descBlock(g, gdInodeTable) + pos/BlockSize, int(pos % BlockSize), nil
}

// inode reads an inode and checks what all of them share.
func (v *volume) inode(ino uint32) (*inode, error) {
	blk, off, err := v.inodePos(ino)
	if err != nil {
		return nil, err
	}
	b, err := v.get(blk)
	if err != nil {
		return nil, err
	}
	n := &inode{num: ino, raw: slices.Clone(b.data[off : off+v.inodeSize])}
	at := int64(blk)*BlockSize + int64(off)
	if !v.inodeSealed(ino, n.raw) {
		return nil, bad(at+inCsumLo, "checksum of "+inoName(ino), "wrong", "that of its bytes")
	}
	if x := n.extra(); x != 0 && (x < 4 || x > v.inodeSize-goodOldIno || x%4 != 0) {
		return nil, bad(at+inExtra, "extra size of "+inoName(ino), x, "4 up to the end of the inode")
	}
	return n, nil
}

// usedInode reads an inode that a directory entry names: it must be in use, and of a kind we know.
func (v *volume) usedInode(ino uint32) (*inode, error) {
	n, err := v.inode(ino)
	if err != nil {
		return nil, err
	}
	if n.links() == 0 || n.mode() == 0 {
		return nil, bad(v.inodeOff(ino), inoName(ino), "not in use", "a file, for a directory names it")
	}
	if f := n.flags() & (flagInlineData | flagEncrypt | flagCasefold | flagEAInode); f != 0 {
		return nil, unsupported(v.inodeOff(ino)+inFlags, "flags of "+inoName(ino), fmt.Sprintf("0x%x", f), "none of inline data, encryption, case folding, attributes in inodes")
	}
	if kindOf(n.mode()) == 0 && n.mode()&ifMask != ifSock {
		return nil, bad(v.inodeOff(ino), "mode of "+inoName(ino), fmt.Sprintf("0%o", n.mode()), "a file type")
	}
	return n, nil
}

func (v *volume) inodeOff(ino uint32) int64 {
	blk, off, err := v.inodePos(ino)
	if err != nil {
		return -1
	}
	return int64(blk)*BlockSize + int64(off)
}

// putInode writes n back into its table, checksummed.
func (v *volume) putInode(n *inode) error {
	blk, off, err := v.inodePos(n.num)
	if err != nil {
		return err
	}
	b, err := v.get(blk)
	if err != nil {
		return err
	}
	if !allZero(n.raw) {
		v.sealInode(n.num, n.raw)
	}
	copy(b.data[off:], n.raw)
	b.dirty = true
	return nil
}

// newInode returns an inode of zeros with the size of the fields that this file system wants.
func (v *volume) newInode(ino uint32) *inode {
	n := &inode{num: ino, raw: make([]byte, v.inodeSize)}
	if v.inodeSize > goodOldIno {
		put16(n.raw, inExtra, extraIsize)
	}
	return n
}

// Range of times: 32 bits with sign and two bits of epoch in the extra field.
const (
	minTime = -1 << 31
	maxTime = 1<<34 - 1<<31 - 1
)

// setTime stores a time; times outside of the range become its ends, as the kernel does.
func (n *inode) setTime(off, extraOff int, sec int64, ns uint32) {
	hi := int64(maxTime)
	has := n.extra() >= extraOff+4-goodOldIno
	if !has {
		hi = 1<<31 - 1
	}
	if sec < minTime {
		sec, ns = minTime, 0
	} else if sec > hi {
		sec, ns = hi, 0
	}
	put32(n.raw, off, uint32(sec))
	if has {
		epoch := uint32((sec-int64(int32(sec)))>>32) & 3
		put32(n.raw, extraOff, ns<<2|epoch)
	}
}

func (n *inode) time(off, extraOff int) (sec int64, ns uint32) {
	if off >= goodOldIno && n.extra() < off+4-goodOldIno {
		return 0, 0
	}
	sec = int64(int32(u32(n.raw, off)))
	if n.extra() >= extraOff+4-goodOldIno {
		x := u32(n.raw, extraOff)
		sec += int64(x&3) << 32
		ns = min(x>>2, 999_999_999)
	}
	return sec, ns
}

// setAttributes takes owner, mode and times of e. The type in the mode is that of n already.
func (n *inode) setAttributes(e *abi.Entry) {
	perm := e.Mode & 0o7777
	if n.mode()&ifMask == ifLnk {
		perm = 0o777
	}
	put16(n.raw, inMode, n.mode()&ifMask|perm)
	put16(n.raw, inUID, e.UID)
	put16(n.raw, inUIDHi, e.UID>>16)
	put16(n.raw, inGID, e.GID)
	put16(n.raw, inGIDHi, e.GID>>16)
	n.setTime(inMtime, inMtimeX, e.MtimeSec, e.MtimeNs)
	n.setTime(inAtime, inAtimeX, e.MtimeSec, e.MtimeNs)
	n.setTime(inCtime, inCtimeX, e.MtimeSec, e.MtimeNs)
}

var modeOfKind = [...]uint32{abi.KindRegular: ifReg, abi.KindDir: ifDir, abi.KindSymlink: ifLnk, abi.KindChar: ifChr, abi.KindBlock: ifBlk, abi.KindFifo: ifFifo}

// kindOf returns the kind of an inode with this mode, 0 for sockets and unknown ones.
func kindOf(mode uint32) abi.Kind {
	for k, m := range modeOfKind {
		if m == mode&ifMask && m != 0 {
			return abi.Kind(k)
		}
	}
	return 0
}

// setDevice stores device numbers in the encoding that the kernel reads.
func (n *inode) setDevice(major, minor uint32) {
	if major < 256 && minor < 256 {
		put32(n.raw, inBlock, major<<8|minor)
		return
	}
	put32(n.raw, inBlock+4, minor&0xff|major<<8|(minor&^0xff)<<12)
}

func (n *inode) device() (major, minor uint32) {
	if d := u32(n.raw, inBlock); d != 0 {
		return d >> 8 & 0xff, d & 0xff
	}
	d := u32(n.raw, inBlock+4)
	return d >> 8 & 0xfff, d&0xff | d>>12&0xfff00
}

// Device numbers that fit.
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)
