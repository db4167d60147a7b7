package nbd

import (
	"errors"
	"io"
	"log/slog"

	"github.com/convhost/convhost/abi"
)

// Disk is what is served. Its methods are called from several goroutines at a time.
type Disk interface {
	io.ReaderAt
	Size() int64 // bytes
}

// WritableDisk is a Disk that takes writes.
type WritableDisk interface {
	Disk
	io.WriterAt
	Zero(off, n int64) error
	Sync() error
}

// Export says what is served.
type Export struct {
	Disk Disk // a WritableDisk can be written
	// Name is what clients call it; "" for the default export. Other names are refused.
	Name string
	// Parallel is how many requests of a connection are worked on; 0 for 16. Each may hold 32 MiB, the protocol's usual limit.
	Parallel int
	Log      *slog.Logger // of the disk's errors; nil for none
}

// Flags returns the transmission flags of the export.
func (e *Export) Flags() uint16 {
	f := uint16(FlagHasFlags | FlagFlush | FlagMultiConn)
	if e.writable() == nil {
		return f | FlagReadOnly
	}
	return f | FlagFUA | FlagTrim | FlagZero
}

func (e *Export) writable() WritableDisk {
	w, _ := e.Disk.(WritableDisk)
	return w
}

func (e *Export) log() *slog.Logger {
	if e.Log != nil {
		return e.Log
	}
	return slog.New(slog.DiscardHandler)
}

// Serve negotiates with a client and then serves its requests until it disconnects (nil) or breaks off.
func Serve(conn io.ReadWriter, e Export) error {
	transmit, err := negotiate(conn, &e)
	if err != nil || !transmit {
		return err
	}
	return Transmit(conn, e)
}

// read fills p; an end before its first byte is io.EOF.
func read(r io.Reader, p []byte, what string) error {
	_, err := io.ReadFull(r, p)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return abi.Errorf(abi.ErrTruncated, "nbd: connection ends in %s", what)
	case err != nil && err != io.EOF:
		return abi.Errorf(abi.ErrIO, "nbd: %s: %w", what, err)
	}
	return err
}

// must is read where the connection may not end.
func must(r io.Reader, p []byte, what string) error {
	err := read(r, p, what)
	if err == io.EOF {
		return abi.Errorf(abi.ErrTruncated, "nbd: connection ends before %s", what)
	}
	return err
}

func send(w io.Writer, p []byte) error {
	if _, err := w.Write(p); err != nil {
		return abi.Errorf(abi.ErrIO, "nbd: send: %w", err)
	}
	return nil
}

func corrupt(format string, args ...any) error {
	return abi.Errorf(abi.ErrCorrupt, "nbd: "+format, args...)
}
