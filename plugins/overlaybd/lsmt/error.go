package lsmt

import "github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"

// format names this format in errors.
const format = codecerr.Format("lsmt")
