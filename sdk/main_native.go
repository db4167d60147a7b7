//go:build !wasip1

package sdk

import "github.com/convhost/convhost/sdk/internal/native"

// Main runs p as a plugin process of a convhost host. It is the whole body of a plugin's main function and does not
// return. Started by hand, the program says what it is and exits with code 1.
func Main(p Plugin) { native.Serve(p.Describe().Name, InProcess(p)) }
