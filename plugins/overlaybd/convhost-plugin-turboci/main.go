// Convhost-plugin-turboci is the TurboOCI plugin as a native program.
package main

import (
	"github.com/convhost/convhost/plugins/overlaybd"
	"github.com/convhost/convhost/sdk"
)

func main() { sdk.Main(overlaybd.NewTurbo()) }
