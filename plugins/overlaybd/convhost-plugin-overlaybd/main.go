// Convhost-plugin-overlaybd is the overlaybd plugin as a native program.
package main

import (
	"github.com/convhost/convhost/plugins/overlaybd"
	"github.com/convhost/convhost/sdk"
)

func main() { sdk.Main(overlaybd.New()) }
