//go:build wasip1

package sdk

import (
	"context"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk/internal/wasmguest"
)

// Main makes p the plugin of this module. It returns at once: the host calls the module's export when it wants
// something, and the first call runs the program's main function, which calls Main.
func Main(p Plugin) {
	wasmguest.Register(func(op abi.Op, req []byte, h abi.Host) ([]byte, error) {
		return dispatch(context.Background(), p, op, req, h)
	})
}
