package wasm

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/wasm/instrument"
)

// checkedModule is a module that was held against the contract and has the polls in it.
type checkedModule struct {
	sum  [sha256.Size]byte // SHA-256 of the module before
	code []byte
}

// check takes the result of an earlier run for the same file from the cache directory, or unpacks the file, checks the module
// and adds the polls.
func (r *Runtime) check(file []byte, unpack func(file []byte) ([]byte, error)) (*checkedModule, error) {
	path := r.checkedPath(file)
	if path != "" {
		if b, err := os.ReadFile(path); err == nil {
			if m := decodeChecked(b); m != nil {
				return m, nil
			}
		}
	}
	code, err := unpack(file)
	if err != nil {
		return nil, err
	}
	m, err := instrument.Read(code, r.cfg.Limits)
	if err != nil {
		return nil, err
	}
	if err := r.checkContract(m); err != nil {
		return nil, err
	}
	out, err := m.Rewrite(abi.WasmModule, abi.WasmPoll)
	if err != nil {
		return nil, err
	}
	checked := &checkedModule{sha256.Sum256(code), out}
	if path != "" {
		if err := writeChecked(path, checked); err != nil {
			r.cfg.Log.Warn("a checked plugin could not be kept for the next time", "file", path, "error", err)
		}
	}
	return checked, nil
}

// checkedPath names the file for a module under this runtime's limits; "" without a cache directory.
func (r *Runtime) checkedPath(file []byte) string {
	if r.cfg.CacheDir == "" {
		return ""
	}
	key := fmt.Appendf(nil, "%x %s %d.%d %d %+v", sha256.Sum256(file), instrument.Version, abi.Major, abi.Minor, r.cfg.MemoryLimit, r.cfg.Limits)
	return filepath.Join(r.cfg.CacheDir, fmt.Sprintf("checked-%x", sha256.Sum256(key)))
}

// A kept module is a CRC-32C of what follows, the SHA-256 of the module before, and the module. The directory is as
// trusted as the machine code in it, which wazero guards in the same way: the checksum is against accidents.
const checkedHead = crc32.Size + sha256.Size

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func decodeChecked(b []byte) *checkedModule {
	if len(b) <= checkedHead || binary.LittleEndian.Uint32(b) != crc32.Checksum(b[crc32.Size:], castagnoli) {
		return nil
	}
	return &checkedModule{[sha256.Size]byte(b[crc32.Size:]), b[checkedHead:]}
}

func (m *checkedModule) encode() []byte {
	b := append(make([]byte, crc32.Size, checkedHead+len(m.code)), m.sum[:]...)
	b = append(b, m.code...)
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[crc32.Size:], castagnoli))
	return b
}

// writeChecked writes aside and renames, so that nobody sees half a file.
func writeChecked(path string, m *checkedModule) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".checked-")
	if err != nil {
		return err
	}
	_, err = f.Write(m.encode())
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
