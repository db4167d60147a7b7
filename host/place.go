package host

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas/lockfile"
)

// place is the directory of one attachment:
//
//	attachment.json   what was attached (record)
//	lock              held by the process that serves it; the system drops it with the process, so it is never stale
//	plugin/           what the plugin needs to detach
//	log               of a serving process that the command started
type place struct {
	dir string
	id  string
}

func (p place) lock() string  { return filepath.Join(p.dir, "lock") }
func (p place) state() string { return filepath.Join(p.dir, "plugin") }
func (p place) file() string  { return filepath.Join(p.dir, "attachment.json") }

// record is the content of attachment.json.
type record struct {
	AttachmentInfo
	Plugin string `json:"plugin,omitempty"` // path of the plugin's file
}

// DefaultStateDir returns where the command writes attachments down: /run/convhost for root, else convhost in $XDG_RUNTIME_DIR or
// in the user's cache directory. Root does not use $XDG_RUNTIME_DIR: it goes away with the session, and devices do not.
func DefaultStateDir() string {
	if st, err := os.Stat("/run"); err == nil && st.IsDir() && os.Geteuid() == 0 {
		return "/run/convhost"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && filepath.IsAbs(dir) {
		return filepath.Join(dir, "convhost")
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "convhost", "attached")
	}
	return ""
}

// newPlace makes the directory of a new attachment. abi.ErrExists if the ID is taken.
func newPlace(parent, id string) (place, error) {
	p := place{filepath.Join(parent, id), id}
	switch {
	case parent == "":
		return p, abi.Errorf(abi.ErrInvalid, "there is no directory to write attachments down in: name one")
	case !validID(id):
		return p, abi.Errorf(abi.ErrInvalid, "attachment %q: want letters, digits and dashes, at most 48", id)
	}
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return p, placeError(err)
	}
	if err := os.Mkdir(p.dir, 0o700); errors.Is(err, fs.ErrExist) {
		if _, err := os.Stat(p.file()); err == nil {
			return p, abi.Errorf(abi.ErrExists, "attachment %s is there already", id)
		}
	} else if err != nil {
		return p, placeError(err)
	}
	if err := os.MkdirAll(p.state(), 0o700); err != nil {
		return p, placeError(err)
	}
	return p, nil
}

// validID keeps an ID fit for a file name, a label and a reference. 48 leaves room in labels of devices.
func validID(id string) bool {
	return id != "" && len(id) <= 48 && id[0] != '-' &&
		strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
}

// write stores what is known, in one step.
func (p place) write(s *record) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return abi.Errorf(abi.ErrInternal, "attachment %s: %w", p.id, err)
	}
	aside := p.file() + ".new"
	if err := os.WriteFile(aside, append(b, '\n'), 0o600); err != nil {
		return placeError(err)
	}
	return placeError(os.Rename(aside, p.file()))
}

// remove deletes the directory with everything in it. It is taken aside first: who else waits for the lock, to remove the
// directory too, would make a new lock in it again and again.
func (p place) remove() error {
	aside := filepath.Join(filepath.Dir(p.dir), ".removed-"+p.id)
	if err := removeAll(aside); err != nil { // of a process that was killed here
		return placeError(err)
	}
	switch err := os.Rename(p.dir, aside); {
	case errors.Is(err, fs.ErrNotExist): // somebody else was faster
		return nil
	case err != nil: // Windows keeps a directory with open files where it is
		aside = p.dir
	}
	return placeError(removeAll(aside))
}

// removeAll is os.RemoveAll of a directory in which somebody who was about to may make one more file.
func removeAll(dir string) (err error) {
	for range 100 {
		if err = os.RemoveAll(dir); !errors.Is(err, fs.ErrExist) { // it is not empty
			break
		}
	}
	return err
}

func (p place) gone() bool {
	_, err := os.Stat(p.dir)
	return errors.Is(err, fs.ErrNotExist)
}

// readPlaces reads all attachments, in the order of their IDs. A directory that is not an attachment is left out.
func readPlaces(parent string) ([]*record, error) {
	if parent == "" {
		return nil, nil
	}
	dirs, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, placeError(err)
	}
	var out []*record
	for _, d := range dirs {
		p := place{filepath.Join(parent, d.Name()), d.Name()}
		if !d.IsDir() || !validID(p.id) {
			continue
		}
		s := new(record)
		b, err := os.ReadFile(p.file())
		if err != nil || json.Unmarshal(b, s) != nil || s.ID != p.id {
			continue // being made, being removed, or not ours
		}
		s.Serving = p.served()
		out = append(out, s)
	}
	return out, nil
}

// served tells whether a process holds the lock.
func (p place) served() bool {
	if _, err := os.Stat(p.lock()); err != nil {
		return false
	}
	l, err := lockfile.TryLock(p.lock())
	if err == nil {
		l.Unlock()
	}
	return errors.Is(err, abi.ErrExists)
}

func placeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return abi.Errorf(abi.ErrDenied, "state of attachments: %w", err)
	}
	return abi.Errorf(abi.ErrIO, "state of attachments: %w", err)
}
