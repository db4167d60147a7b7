//go:build !linux

package ext4_test

import (
	"testing"

	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
)

func mounted(t *testing.T, _ *ext4.Overlay, _ *flatten.Tree) { missing(t, "a Linux kernel") }
