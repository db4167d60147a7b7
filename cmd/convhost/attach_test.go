package main

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/convhost/convhost/host"
)

// Flags become the request, a directory becomes a reference.
func TestAttachRequest(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	upper := t.TempDir()
	for name, c := range map[string]struct {
		args    []string
		image   string
		target  string
		options map[string]string
	}{
		"plain":     {[]string{"oci:a:1"}, "oci:a:1", "", nil},
		"directory": {[]string{dir, "--mount", "/m"}, "oci:" + dir, "/m", nil},
		"writable":  {[]string{"oci:a:1", "--writable", "-o", "device=nbd"}, "oci:a:1", "", map[string]string{"writable": "true", "device": "nbd"}},
		"upper":     {[]string{"oci:a:1", "--upper", upper}, "oci:a:1", "", map[string]string{"upper": upper}},
	} {
		r := &recorder{}
		code, _, stderr := r.try(t, nil, append([]string{"attach", "obd", "--foreground", "--id", "x", "--platform", "linux/arm64", "--runtime", "native"}, c.args...)...)
		q := r.attach
		if code != 0 || q.Format != "obd" || q.Image != c.image || q.Target != c.target || q.ID != "x" || q.Runtime != host.RuntimeNative ||
			len(q.Select.Platforms) != 1 || !maps.Equal(q.Options, c.options) || q.Only {
			t.Errorf("%s: code %d, %s, request %+v", name, code, stderr, q)
		}
	}
}
