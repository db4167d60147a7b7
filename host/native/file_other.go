//go:build !unix

package native

import (
	"os"

	"github.com/convhost/convhost/abi"
)

func passable(*os.File) bool { return false }

func newPipe(bool) (r, w *os.File, err error) {
	return nil, nil, abi.Errorf(abi.ErrInternal, "pipes cannot be passed here")
}
