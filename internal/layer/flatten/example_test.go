package flatten_test

import (
	"encoding/json"
	"fmt"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/flatten"
)

func Example() {
	build := func(mode uint32) *flatten.Tree {
		t := flatten.New(flatten.Options{})
		for _, layer := range [][]abi.Entry{
			{{Kind: abi.KindDir, Path: "etc", Mode: 0o755}, {Kind: abi.KindRegular, Path: "etc/motd", Mode: 0o644}},
			{{Kind: abi.KindRegular, Flags: abi.EntryWhiteout, Path: "etc/.wh.motd"}, {Kind: abi.KindSymlink, Path: "etc/mtab", Link: "/proc/mounts"}},
			{{Kind: abi.KindDir, Path: "etc", Mode: mode}},
		} {
			t.BeginLayer()
			for i := range layer {
				if err := t.Apply(&layer[i], [32]byte{}); err != nil {
					fmt.Println(err)
				}
			}
		}
		return t
	}
	a, b := build(0o755), build(0o700)
	for r := range a.Records() {
		line, _ := json.Marshal(r)
		fmt.Println(string(line))
	}
	for _, d := range flatten.Compare(a.Records(), b.Records(), flatten.CompareOptions{}) {
		fmt.Println(d)
	}
	// Output:
	// {"path":"","type":"dir","mode":"0755","uid":0,"gid":0,"mtimeSec":0,"mtimeNs":0,"implied":true}
	// {"path":"etc","type":"dir","mode":"0755","uid":0,"gid":0,"mtimeSec":0,"mtimeNs":0}
	// {"path":"etc/mtab","type":"symlink","mode":"0777","uid":0,"gid":0,"mtimeSec":0,"mtimeNs":0,"link":"/proc/mounts"}
	// "/etc": mode is 0755 in the first, 0700 in the second
}
