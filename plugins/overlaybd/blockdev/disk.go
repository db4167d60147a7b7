package blockdev

import (
	"errors"
	"io"

	"github.com/convhost/convhost/abi"
)

// SectorSize is the unit of a device, in bytes. Disks have whole sectors.
const SectorSize = 512

// Disk is what a device consists of. Its methods are called from several goroutines at a time.
type Disk interface {
	io.ReaderAt
	Size() int64 // bytes; it does not change
}

// WritableDisk is a Disk that takes writes. Ranges of writes that run at the same time do not overlap, unless whoever
// writes to the device does not care.
type WritableDisk interface {
	Disk
	io.WriterAt
	// Zero makes a range read as zeros, and may free its place.
	Zero(off, n int64) error
	// Sync returns when everything that was written before is durable.
	Sync() error
}

// ReadOnly hides that a disk can be written.
func ReadOnly(d Disk) Disk { return readOnly{d} }

type readOnly struct{ Disk }

// readFull reads all of p, or says why not.
func readFull(d Disk, p []byte, off int64) error {
	n, err := d.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return abi.Errorf(abi.ErrTruncated, "disk ends at %d, it should have %d bytes", off+int64(n), d.Size())
	}
	return err
}

// inside tells whether n bytes at off are of the disk.
func inside(d Disk, off, n uint64) bool {
	size := uint64(d.Size())
	return off <= size && n <= size-off
}
