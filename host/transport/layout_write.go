package transport

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas/lockfile"
)

// layoutTarget writes into an OCI layout directory. Blobs are staged in a scratch directory inside it; Publish moves
// them to blobs/ and then rewrites index.json under a lock, so that any number of processes may write one layout.
type layoutTarget struct {
	*staging
	ref     Reference
	created []string // directories that we made, outermost first

	state     sync.Mutex
	relied    map[digest.Digest]int64 // blobs that were there before and that Has reported
	published bool
}

const indexLock = ".convhost-index.lock"

func openLayoutTarget(_ context.Context, ref Reference) (Target, error) {
	var err error
	for range 10 { // another writer that gives up may remove the directory again before we are in it
		t := &layoutTarget{ref: ref, relied: map[digest.Digest]int64{}}
		if t.created, err = mkdirAll(ref.Path); err == nil {
			if err = checkLayoutDir(ref.Path); err == nil {
				t.staging, err = newStaging(ref.Path)
			}
		}
		if err == nil {
			return t, nil
		}
		t.removeCreated()
		if !errors.Is(err, abi.ErrNotFound) && !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	return nil, wrap(err, ref.String())
}

// mkdirAll makes dir and its parents and returns those that were not there.
func mkdirAll(dir string) ([]string, error) {
	var missing []string
	for p := filepath.Clean(dir); ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); err == nil || !errors.Is(err, os.ErrNotExist) || p == filepath.Dir(p) {
			break
		}
		missing = append(missing, p)
	}
	slices.Reverse(missing)
	return missing, os.MkdirAll(dir, 0o755)
}

// checkLayoutDir refuses directories that hold something else.
func checkLayoutDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var other string
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "index.json" || name == "oci-layout":
			return nil
		case name != "blobs" && !(len(name) > len(scratchPrefix) && name[:len(scratchPrefix)] == scratchPrefix):
			other = name
		}
	}
	if other != "" {
		return abi.Errorf(abi.ErrExists, "the directory holds other things (%s) and is not an OCI image layout", other)
	}
	return nil
}

func (t *layoutTarget) removeCreated() {
	for _, p := range slices.Backward(t.created) {
		os.Remove(p) // only when it is empty
	}
}

// Has also accepts what the layout holds already, after reading it: other writers may not sync.
func (t *layoutTarget) Has(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if err := t.usable(); err != nil {
		return false, err
	}
	if ok, err := t.has(desc); ok || err != nil {
		return ok, err
	}
	t.state.Lock()
	size, ok := t.relied[desc.Digest]
	t.state.Unlock()
	if ok {
		return size == desc.Size, nil
	}
	ra, err := openLayoutBlob(t.ref.Path, desc.Digest)
	if errors.Is(err, abi.ErrNotFound) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	defer ra.Close()
	_, err = io.Copy(io.Discard, Verify(&ctxReader{ctx: ctx, ReadCloser: BlobReader(ra)}, desc))
	if errors.Is(err, abi.ErrDigest) {
		return false, nil // damaged: it will be replaced
	} else if err != nil {
		return false, err
	}
	t.state.Lock()
	t.relied[desc.Digest] = desc.Size
	t.state.Unlock()
	return true, nil
}

func (t *layoutTarget) Push(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	return t.push(ctx, desc, open)
}

func (t *layoutTarget) Publish(ctx context.Context, root ocispec.Descriptor) error {
	if err := t.usable(); err != nil {
		return err
	}
	if ok, err := t.Has(ctx, root); err != nil {
		return err
	} else if !ok {
		return abi.Errorf(abi.ErrNotFound, "publish %s: the root %s was not pushed", t.ref, root.Digest)
	}
	if err := t.moveBlobs(ctx, root.Digest); err != nil {
		return wrap(err, "publish "+t.ref.String())
	}
	if err := t.updateIndex(ctx, root); err != nil {
		return wrap(err, "publish "+t.ref.String())
	}
	t.state.Lock()
	t.published = true
	t.state.Unlock()
	return nil
}

// moveBlobs gives staged blobs their names, the root's last.
func (t *layoutTarget) moveBlobs(ctx context.Context, root digest.Digest) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]stagedBlob, 0, len(t.blobs))
	for _, b := range t.blobs {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b stagedBlob) int {
		if (a.desc.Digest == root) != (b.desc.Digest == root) {
			return cmp.Compare(btoi(a.desc.Digest == root), btoi(b.desc.Digest == root))
		}
		return cmp.Compare(a.desc.Digest, b.desc.Digest)
	})
	dirs := map[string]bool{}
	for _, b := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := blobPath(t.ref.Path, b.desc.Digest)
		if dir := filepath.Dir(path); !dirs[dir] {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			dirs[dir] = true
		}
		if err := os.Rename(b.path, path); err != nil {
			if fi, serr := os.Stat(path); serr != nil || fi.Size() != b.desc.Size {
				return err
			} // windows does not replace a file that somebody reads
		}
		delete(t.blobs, b.desc.Digest)
		t.state.Lock()
		t.relied[b.desc.Digest] = b.desc.Size
		t.state.Unlock()
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	if len(dirs) > 0 {
		return syncDir(filepath.Join(t.ref.Path, "blobs"))
	}
	return nil
}

// updateIndex makes the root visible. What it does not understand in index.json stays as it is.
func (t *layoutTarget) updateIndex(ctx context.Context, root ocispec.Descriptor) error {
	lock, err := lockfile.Lock(ctx, filepath.Join(t.ref.Path, indexLock))
	if err != nil {
		return err
	}
	defer lock.Remove()
	if err := t.checkRelied(); err != nil {
		return err
	}
	path := filepath.Join(t.ref.Path, "index.json")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	b, err := addToIndex(t.ref.Path, old, root, t.ref.Tag)
	if err != nil {
		return err
	}
	marker := filepath.Join(t.ref.Path, "oci-layout")
	if _, err := os.Stat(marker); errors.Is(err, os.ErrNotExist) {
		if err := t.writeFile(marker, []byte(layoutJSON)); err != nil {
			return err
		}
	}
	return t.writeFile(path, b)
}

// checkRelied looks whether what was there, or what we moved there, still is.
func (t *layoutTarget) checkRelied() error {
	t.state.Lock()
	defer t.state.Unlock()
	for d, size := range t.relied {
		if fi, err := os.Stat(blobPath(t.ref.Path, d)); err != nil || fi.Size() != size {
			return abi.Errorf(abi.ErrExists, "blob %s was there and was removed meanwhile by somebody else", d)
		}
	}
	return nil
}

// addToIndex returns index.json with root under tag. An entry that had the tag, or the same digest and no name, gives
// its place to the new one.
func addToIndex(name string, old []byte, root ocispec.Descriptor, tag string) ([]byte, error) {
	doc := map[string]json.RawMessage{}
	var entries []json.RawMessage
	if len(old) > 0 {
		if _, err := parseLayoutIndex(name, old); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(old, &doc); err != nil {
			return nil, abi.Errorf(abi.ErrCorrupt, "%s: index.json: %w", name, err)
		}
		if raw, ok := doc["manifests"]; ok {
			if err := json.Unmarshal(raw, &entries); err != nil {
				return nil, abi.Errorf(abi.ErrCorrupt, "%s: index.json: %w", name, err)
			}
		}
	} else {
		doc["schemaVersion"] = json.RawMessage("2")
		doc["mediaType"] = json.RawMessage(`"` + ocispec.MediaTypeImageIndex + `"`)
	}
	entry := ocispec.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size,
		ArtifactType: root.ArtifactType, Platform: root.Platform}
	if tag != "" {
		entry.Annotations = map[string]string{annRefName: tag}
	}
	raw, err := json.Marshal(entry)
	if err != nil {
		return nil, abi.Errorf(abi.ErrInternal, "encode index entry: %w", err)
	}
	placed := false
	kept := make([]json.RawMessage, 0, len(entries)+1)
	for _, e := range entries {
		var d ocispec.Descriptor
		if err := json.Unmarshal(e, &d); err != nil {
			return nil, abi.Errorf(abi.ErrCorrupt, "%s: index.json: %w", name, err)
		}
		have := d.Annotations[annRefName]
		if tag != "" && have == tag || have == "" && d.Annotations[annImage] == "" && d.Digest == root.Digest {
			if !placed {
				kept, placed = append(kept, raw), true
			}
			continue
		}
		kept = append(kept, e)
	}
	if !placed {
		kept = append(kept, raw)
	}
	if doc["manifests"], err = json.Marshal(kept); err != nil {
		return nil, abi.Errorf(abi.ErrInternal, "encode index: %w", err)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, abi.Errorf(abi.ErrInternal, "encode index: %w", err)
	}
	return b, nil
}

// Close removes the scratch directory, and the layout's directory when we made it and nothing is in it.
func (t *layoutTarget) Close() error {
	err := t.staging.close()
	t.state.Lock()
	published := t.published
	t.state.Unlock()
	if !published {
		t.removeCreated()
	}
	return err
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
