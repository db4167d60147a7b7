package zfile

import "github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"

// table holds the positions of blocks. Blocks that come from 64 KiB of content form a group; the position of a group is stored in
// full, that of a block as its distance from the group's in 16 bits. Upstream does the same and refuses files in which
// that does not fit, and so do we.
type table struct {
	group  int64   // blocks in a group, a power of two
	groups []int64 // position of each group's first block
	sums   []uint16
	end    int64 // where the last block ends
}

func newTable(blockSize int, start int64) table {
	return table{group: int64(groupBytes / blockSize), end: start}
}

// add appends a block with a stored length; at is where the table has it.
func (t *table) add(length uint32, at int64, h Header) error {
	low := uint32(0)
	if h.Verify {
		low = crcSize
	}
	if length <= low || length > maxStored {
		return format.Corrupt(at, "jump table entry", codecerr.Dec(length), "more than "+codecerr.Dec(low)+" and at most "+codecerr.Dec(maxStored))
	}
	if n := int64(len(t.sums)); n%t.group == 0 {
		t.groups = append(t.groups, t.end)
		t.sums = append(t.sums, 0)
	} else {
		sum := t.end - t.groups[len(t.groups)-1]
		if sum >= maxSum {
			return format.Corrupt(at-entrySize, "sum of jump table entries inside 64 KiB of content", codecerr.Dec(sum), "less than 65535")
		}
		t.sums = append(t.sums, uint16(sum))
	}
	t.end += int64(length)
	return nil
}

// position returns where block k starts; k may be the number of blocks.
func (t *table) position(k int64) int64 {
	if k >= int64(len(t.sums)) {
		return t.end
	}
	return t.groups[k/t.group] + int64(t.sums[k])
}
