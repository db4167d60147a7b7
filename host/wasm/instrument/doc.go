// Package instrument reads a WebAssembly module that nobody trusts, refuses what would be expensive or dangerous to
// compile, and rewrites it so that the host regains control at short intervals while it runs.
//
// A compiled guest is one uninterruptible piece of machine code to the Go runtime: it cannot be cancelled, and the
// garbage collector waits for it. wazero's own remedy leaves native code in every loop and makes guests 2 to 12 times
// slower. [Rewrite] instead adds one global counter to the module. Loop headers and entries of functions that call or
// are long subtract their weight from it; at zero the guest calls an imported function, the poll, and starts with a
// new [Budget]. Bulk memory instructions subtract by the bytes they move. So the work between two polls is bounded
// (a few milliseconds), whatever the guest does, recursion without loops included.
//
// The order of use is [Read] (structure, counts, sections), then the caller's own checks of imports and exports, then
// [Module.Rewrite], then the compiler. Read and Rewrite obey [Limits]: the complexity limits of functions hold back
// modules of some kilobytes that keep an optimising compiler busy for minutes.
//
// Accepted is WebAssembly 2.0 as Go and clang emit it: bulk memory, sign extension, saturating conversion, multiple
// values, reference types, 128-bit vectors. Threads, exceptions, tail calls, garbage collection, typed function
// references and multiple memories are refused with abi.ErrUnsupported. A module that breaks the binary format is
// abi.ErrCorrupt, one that exceeds a limit abi.ErrLimit; all are *abi.FormatError with the offset. Types of operands are
// not checked here: that is the compiler's validation, which runs on the result.
//
// Functions that the Go compiler made are taken through package gocode first, which gives them their control flow back; that
// makes them up to twice as fast.
//
// Custom sections (names, debug information) are dropped. The result depends on the input only.
package instrument
