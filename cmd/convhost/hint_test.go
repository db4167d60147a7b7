package main

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/convhost/convhost/abi"
)

// TestLimitHints: only limits that have a flag are said to be raisable, by the flag that does it.
func TestLimitHints(t *testing.T) {
	var s settings
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	s.register(f)
	for _, name := range []string{abi.LimitLayerBytes, abi.LimitLayerRatio, abi.LimitPluginMemory, abi.LimitPluginTime, abi.LimitPluginStall, abi.LimitOutput} {
		flag := limitFlags[name]
		if f.Lookup(flag) == nil {
			t.Errorf("%s: there is no flag %q", name, flag)
		}
		for _, class := range []abi.Class{abi.ErrLimit, abi.ErrTimeout} {
			r := recorder{err: abi.WithLimit(abi.Errorf(class, "too much"), name)}
			if _, _, stderr := r.try(t, nil, "inspect", "oci:x"); !strings.Contains(stderr, "\nhint: --"+flag+" raises that limit") {
				t.Errorf("%s: %s", name, stderr)
			}
		}
	}
	r := recorder{err: abi.Errorf(abi.ErrLimit, "indexes are nested too deep")}
	if _, _, stderr := r.try(t, nil, "inspect", "oci:x"); strings.Contains(stderr, "hint") {
		t.Errorf("%s", stderr)
	}
}
