// Package wasm runs WebAssembly plugins in a sandbox, on wazero.
//
//	rt, err := wasm.New(ctx, wasm.Config{CacheDir: dir})   // once a process or host
//	m, err := rt.Load(ctx, code)                           // check, instrument, compile (or take from the cache)
//	g, err := m.NewGuest(ctx)                              // cheap
//	resp, err := g.Call(ctx, abi.OpConvertLayer, req, host) // a fresh instance each time; the next is made meanwhile
//
// # What a plugin cannot do
//
// A module may import the functions of abi.WasmImports and those of WASI preview 1, nothing else; WASI here has no
// files, sockets, arguments or environment, its clock advances by a fixed step a reading and its random numbers are
// always the same, so that equal requests give equal bytes. Everything else is refused before compilation. Bad
// pointers end the plugin. Memory has a fixed place and a limit (abi.ErrLimit). Log messages and output are limited; the
// last 4 KiB of output are part of the error when a plugin dies.
//
// # What a plugin cannot hold up
//
// Package instrument makes every guest call its host each few milliseconds. There a cancelled context
// (abi.ErrCanceled), the time limit of a call and the limit of time without a call to the host (both abi.ErrTimeout)
// take effect, and Go's garbage collector gets its turn. Modules that would take the compiler minutes are refused
// (abi.ErrLimit). A trap, an exit, a panic and a wrong result are abi.ErrPlugin; they end one call and nothing else,
// because instances are never used again.
//
// When a call of the plugin to the host failed and the plugin then fails, the error of Call wraps the host's original
// error.
//
// # Trust
//
// CacheDir holds machine code: who can write to it can run code in this process. It is created for the current user
// only, and refused on Unix if others can write to it or own it.
//
// A Runtime and its Modules are safe for concurrent use. [Runtime.Close] frees everything; no call may be running then.
package wasm
