package blockdev

import (
	"context"
	"log/slog"

	"github.com/convhost/convhost/abi"
)

// Config says what to present, and how.
type Config struct {
	Disk Disk
	// Dir is a directory that belongs to the device alone; the fuse backend mounts a file there. It must exist.
	Dir string
	// Label marks the device as the caller's, up to 60 bytes; it must be unlike that of any other device.
	Label string
	// Backend is one of Backends, or "" for the first that works.
	Backend string
	// Save keeps what Clean needs. It is called before each thing that outlives a killed process is made; its error ends
	// Open. nil: nothing is kept.
	Save func(State) error
	// Log gets errors of the disk; nil for none.
	Log *slog.Logger
}

// Device is a presented disk.
type Device interface {
	// Path names the device: /dev/loop3. That of the backend socket is an address: nbd+unix:///?socket=/run/app/x/nbd
	Path() string
	// State describes what Clean would remove.
	State() State
	// Done is closed when the kernel gave the device up.
	Done() <-chan struct{}
	// Close takes the device away and waits until nothing of it is left. abi.ErrExists if somebody uses it: then it lives on.
	// It may be called again.
	Close() error

	sealed()
}

// State is what a device consists of outside its process. It is stored as JSON and only grows.
type State struct {
	Backend string `json:"backend"`
	Label   string `json:"label"`
	File    string `json:"file,omitempty"`   // mount point of the FUSE file system, a file
	Device  string `json:"device,omitempty"` // path of the block device, which may be somebody else's by now
	Server  int    `json:"server,omitempty"` // nbd: the thread that the kernel calls the device's server
}

// Backend is a way into the kernel.
type Backend struct {
	Name string
	Err  error // nil: it can be used; else abi.ErrUnsupported or abi.ErrDenied with what is missing
}

// Open presents a disk. Errors: ErrUnsupported if the kernel lacks what the backend needs, ErrDenied without the rights to
// use it, ErrInvalid for a wrong Config, ErrIO.
func Open(ctx context.Context, c Config) (Device, error) {
	if size := c.Disk.Size(); size <= 0 || size%SectorSize != 0 {
		return nil, abi.Errorf(abi.ErrInvalid, "disk has %d bytes, want whole sectors of %d", size, SectorSize)
	}
	if c.Label == "" || len(c.Label) > maxLabel {
		return nil, abi.Errorf(abi.ErrInvalid, "label %q: want 1 to %d bytes", c.Label, maxLabel)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Save == nil {
		c.Save = func(State) error { return nil }
	}
	name, err := choose(c.Backend)
	if err != nil {
		return nil, err
	}
	return open(ctx, name, c)
}

// maxLabel is what the kernel keeps of a loop device's name, with its end.
const maxLabel = 60

// choose returns the backend to use.
func choose(want string) (string, error) {
	var first error
	for _, b := range Backends() {
		switch {
		case want == b.Name:
			return b.Name, b.Err
		case want == "" && b.Err == nil && b.Name != "socket": // which is no device
			return b.Name, nil
		case first == nil && b.Err != nil:
			first = b.Err
		}
	}
	switch {
	case want != "":
		return "", abi.Errorf(abi.ErrInvalid, "block device backend %q is none of fuse, nbd, socket", want)
	case first == nil:
		first = abi.Errorf(abi.ErrUnsupported, "block devices can only be made on Linux")
	}
	return "", first
}
