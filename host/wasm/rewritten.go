package wasm

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/wasm/instrument"
)

// rewrite checks code and adds the polls, or takes the result of an earlier run from the cache directory, which is as
// trusted as the machine code beside it. A file there is the SHA-256 of what follows, then the module.
func (r *Runtime) rewrite(code []byte, id digest.Digest) ([]byte, error) {
	path := r.rewrittenPath(id)
	if path != "" {
		if b, err := os.ReadFile(path); err == nil && len(b) > sha256.Size {
			if sum := sha256.Sum256(b[sha256.Size:]); string(sum[:]) == string(b[:sha256.Size]) {
				return b[sha256.Size:], nil
			}
		}
	}
	m, err := instrument.Read(code, r.cfg.Limits)
	if err != nil {
		return nil, err
	}
	if err := r.checkContract(m); err != nil {
		return nil, err
	}
	out, err := m.Rewrite(abi.WasmModule, abi.WasmPoll)
	if err == nil && path != "" {
		if err := writeRewritten(path, out); err != nil {
			r.cfg.Log.Warn("a checked plugin could not be kept for the next time", "file", path, "error", err)
		}
	}
	return out, err
}

// rewrittenPath names the file for a module under this runtime's limits; "" without a cache directory.
func (r *Runtime) rewrittenPath(id digest.Digest) string {
	if r.cfg.CacheDir == "" {
		return ""
	}
	key := fmt.Appendf(nil, "%s %s %d.%d %d %+v", id, instrument.Version, abi.Major, abi.Minor, r.cfg.MemoryLimit, r.cfg.Limits)
	return filepath.Join(r.cfg.CacheDir, fmt.Sprintf("checked-%x", sha256.Sum256(key)))
}

// writeRewritten writes aside and renames, so that nobody sees half a file.
func writeRewritten(path string, code []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".checked-")
	if err != nil {
		return err
	}
	sum := sha256.Sum256(code)
	_, err = f.Write(append(sum[:], code...))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
