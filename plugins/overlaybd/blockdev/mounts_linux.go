package blockdev

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/convhost/convhost/abi"
)

// Mount is a line of the kernel's table of mounts.
type Mount struct {
	Device string // major:minor
	Path   string
	Type   string
	Source string
}

// Mounts returns what is mounted in this process's view, in the order of mounting.
func Mounts() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, systemError("read the table of mounts", err)
	}
	defer f.Close()
	return parseMounts(f)
}

// sourceMounted tells whether a device is mounted in this process's view.
func sourceMounted(device string) (bool, error) {
	all, err := Mounts()
	for _, m := range all {
		if m.Source == device {
			return true, nil
		}
	}
	return false, err
}

// notWhileMounted is why a device is not taken away: it is mounted, or err.
func notWhileMounted(device string, err error) error {
	if err == nil {
		err = abi.Errorf(abi.ErrExists, "%s is mounted: unmount it first", device)
	}
	return err
}

// parseMounts reads lines of proc(5): ID, parent, device, root, path, options, any number of tags, "-", type, source, options.
func parseMounts(r io.Reader) ([]Mount, error) {
	var out []Mount
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		left, right, ok := strings.Cut(s.Text(), " - ")
		a, b := strings.Fields(left), strings.Fields(right)
		if !ok || len(a) < 5 || len(b) < 2 {
			continue
		}
		out = append(out, Mount{Device: a[2], Path: unescape(a[4]), Type: b[0], Source: unescape(b[1])})
	}
	if err := s.Err(); err != nil {
		return nil, abi.Errorf(abi.ErrIO, "read the table of mounts: %w", err)
	}
	return out, nil
}

// unescape turns \040 and the like into the bytes that they are.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && len(s)-i >= 4 {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
