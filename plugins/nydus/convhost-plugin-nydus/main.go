// Convhost-plugin-nydus is the nydus plugin as a program: sandboxed when it is built for wasip1/wasm, else a native plugin.
package main

import (
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/sdk"
)

func main() { sdk.Main(nydus.New()) }
