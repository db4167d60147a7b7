// Package wasmguest is the plugin's side of the WebAssembly binding: it exports the function that the host calls, and
// implements abi.Host over the host's imports. Package sdk uses it when a plugin is built with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared
//
// For other systems the package is empty. abi.md describes the binding; the host's half is package host/wasm.
package wasmguest
