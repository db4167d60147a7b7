package cas

import (
	"context"
	"os"
	"path/filepath"

	"github.com/convhost/convhost/host/cas/lockfile"
)

// EphemeralPrefix begins the names of the directories that OpenEphemeral makes.
const EphemeralPrefix = "convhost-"

// OpenEphemeral makes a store in a new private directory below parentDir ("": the system's directory for temporary
// files), which must exist, and removes those that killed processes left there. Close removes the store.
//
// A parentDir on the file system of the conversion's target lets the target take blobs over by a hard link.
func OpenEphemeral(ctx context.Context, parentDir string) (*Ephemeral, error) {
	if parentDir == "" {
		parentDir = os.TempDir()
	}
	scratch, err := lockfile.NewScratch(parentDir, EphemeralPrefix)
	if err != nil {
		return nil, wrap(err, "make a temporary content store")
	}
	s, err := open(ctx, filepath.Join(scratch.Dir, "store"), Options{NoSync: true})
	if err != nil {
		scratch.Remove()
		return nil, err
	}
	return &Ephemeral{embedded: s, scratch: scratch}, nil
}

// Ephemeral is a Store that disappears.
type Ephemeral struct {
	*embedded
	scratch *lockfile.Scratch
}

// Keep makes the store outlive its use: Close leaves the directory, which nobody removes any more, and which is
// returned. [Open] opens the directory "store" in it.
func (e *Ephemeral) Keep() string {
	e.scratch.Keep()
	return e.scratch.Dir
}

// Close implements Store; it also removes the directory.
func (e *Ephemeral) Close() error {
	err := e.embedded.Close()
	if rerr := e.scratch.Remove(); err == nil {
		err = rerr
	}
	return err
}
