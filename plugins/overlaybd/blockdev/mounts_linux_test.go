package blockdev

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseMounts(t *testing.T) {
	got, err := parseMounts(strings.NewReader(`22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
57 22 0:57 / /tmp/a\040b\134c ro,nosuid - fuse.convhost con\040host ro,user_id=0
58 22 7:0 / /mnt ro master:3 propagate_from:2 - ext4 /dev/loop0 ro
half a line
`))
	want := []Mount{
		{"254:0", "/", "ext4", "/dev/root"}, {"0:57", `/tmp/a b\c`, "fuse.convhost", "con host"}, {"7:0", "/mnt", "ext4", "/dev/loop0"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}
