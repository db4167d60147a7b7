// Package plugintest holds a format plugin against the contract of package abi: what abi.md demands of a plugin, as tests.
// The plugin can be written in any language; what is tested is its file, in the runtime that users run it in.
//
//	func TestConformance(t *testing.T) {
//		plugintest.Run(t, plugintest.Config{Open: plugintest.Wasm("squash.wasm")})
//	}
//
// [Wasm] and [Native] open files, [InProcess] takes a Go value. [Run] converts a set of layers that it makes itself (empty,
// one of everything, 1000 small files, a file larger than any chunk, whiteouts, hard links, devices, attributes), and
// whole images of them, under conditions that must not matter (number of cores, sizes of batches, other conversions at the
// same time) and under ones that must (cancellation, outputs that fail, layers that end early, wrong options). Each rule is
// a subtest; [Cases] lists them with the section of abi.md that they come from. A rule that does not concern a plugin, such
// as those on Unpack for one that has none, is skipped and says so.
//
// What the kit does not know is whether a format's bytes are right: hold them against the format's own tools.
//
// The kit imports the host's two plugin runtimes, which the rest of the SDK does not. It is for tests; nothing of it
// gets into a plugin.
package plugintest
