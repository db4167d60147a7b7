// Package sdk is for authors of convhost format plugins in Go.
//
// Write one type that implements [Plugin] (two methods; more abilities are further small interfaces) and call [Main]:
//
//	type squash struct{}
//
//	func (squash) Describe() abi.Description { return abi.Description{Name: "squash", Version: "1", …} }
//	func (squash) ConvertLayer(ctx context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) { … }
//
//	func main() { sdk.Main(squash{}) }
//
// Built with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o squash.wasm .
//
// it is a sandboxed plugin; built for your own system it is a native one; and [InProcess] makes it a value that
// an embedder gives to host.New. The three behave alike: package sdk/plugintest holds them against the same rules.
//
// A plugin never opens a file, a socket or a store. All it reads and writes passes through the [abi.Host] of the
// operation: the layer as a stream of parsed entries, as a tar or as stored; converted parts with random access;
// outputs as sinks. It should not touch the bulk of the data either: it declares a plan (how to chunk, digest,
// compress and deduplicate) and lets the host run file bodies through it on all cores; what it gets back are
// completions, one per chunk. In the sandbox this is the difference between 97 % and 8 % of native speed.
//
// Rules: one operation at a time, no state between operations, no time, no randomness, no dependence on map order:
// the same request gives the same bytes. Return errors of the classes in package abi; anything else counts as a
// fault of the plugin.
package sdk
