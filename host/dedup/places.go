package dedup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Lines of a file of places. A place that was seen again has a line again; the last one counts. When a file has more
// than compactLines lines, whoever adds one writes it anew.
const (
	compactLines = 4 * MaxPlaces
	maxPlaceFile = 1 << 20
)

func (d *dir) placesFile(blob digest.Digest) string {
	hex := blob.Encoded()
	return filepath.Join(d.path, placesDir, hex[:2], blob.Algorithm().String()+"-"+hex)
}

// readPlaces returns what a file says, oldest first, and the number of its lines. Lines that say nothing do not count.
func readPlaces(path string) (list []seen, lines int, err error) {
	b, _, err := readSmall(path, maxPlaceFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	} else if err != nil {
		return nil, 0, diskError(err, "dedup store")
	}
	for line := range bytes.Lines(b) {
		lines++
		s, ok := parseSeen(string(line))
		if !ok {
			continue
		}
		list = slices.DeleteFunc(list, func(o seen) bool { return o.place == s.place })
		list = append(list, s)
		list = list[max(0, len(list)-MaxPlaces):]
	}
	return list, lines, nil
}

func parseSeen(line string) (seen, bool) {
	at, name, _ := strings.Cut(line, " ")
	sec, err := strconv.ParseInt(at, 10, 64)
	name, whole := strings.CutSuffix(name, "\n")
	if err != nil || !whole {
		return seen{}, false
	}
	p, err := ParsePlace(name)
	return seen{p, time.Unix(sec, 0)}, err == nil
}

func (s seen) line() string { return fmt.Sprintf("%d %s\n", s.at.Unix(), s.place) }

// Places implements Store.
func (d *dir) Places(ctx context.Context, blob digest.Digest) ([]Place, error) {
	if err := cmp.Or(validBlobs([]digest.Digest{blob}), d.usable(ctx)); err != nil {
		return nil, err
	}
	list, _, err := readPlaces(d.placesFile(blob))
	var out []Place
	for _, s := range slices.Backward(list) {
		out = append(out, s.place)
	}
	return out, err
}

// AddPlace implements Store. A line is appended in one write, so that writers do not hurt each other.
func (d *dir) AddPlace(ctx context.Context, place Place, blobs ...digest.Digest) error {
	if err := cmp.Or(place.Validate(), validBlobs(blobs)); err != nil {
		return err
	}
	line := seen{place, time.Now()}.line()
	for _, b := range blobs {
		if err := d.usable(ctx); err != nil {
			return err
		}
		path := d.placesFile(b)
		if _, lines, err := readPlaces(path); err != nil || lines >= compactLines {
			if err := d.rewrite(path, func(seen) bool { return true }); err != nil {
				return err
			}
		}
		if err := appendLine(path, line); err != nil {
			return diskError(err, "dedup store")
		}
	}
	return nil
}

func appendLine(path, line string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// DropPlace implements Store.
func (d *dir) DropPlace(ctx context.Context, place Place, blobs ...digest.Digest) error {
	if err := cmp.Or(place.Validate(), validBlobs(blobs)); err != nil {
		return err
	}
	for _, b := range blobs {
		if err := d.usable(ctx); err != nil {
			return err
		}
		if err := d.rewrite(d.placesFile(b), func(s seen) bool { return s.place != place }); err != nil {
			return err
		}
	}
	return nil
}

// rewrite keeps the places of a file that fn wants. A line that another process appends meanwhile may be lost.
func (d *dir) rewrite(path string, fn func(seen) bool) error {
	list, lines, err := readPlaces(path)
	if err != nil || lines == 0 {
		return err
	}
	var text strings.Builder
	for _, s := range list {
		if fn(s) {
			text.WriteString(s.line())
		}
	}
	if text.Len() == 0 {
		return remove(path)
	}
	return d.write(path, []byte(text.String()))
}

func (d *dir) prunePlaces(path string, before time.Time) error {
	return d.rewrite(path, func(s seen) bool { return !s.at.Before(before) })
}
