// Package abi is the contract between the convhost host and its format plugins, and nothing else.
//
// It defines the operations a host asks for ([Op]), the messages of their requests and answers (messages.go, the same
// as abi.proto), what a plugin may do to the outside while one runs ([Host]), the flat records that carry entries and
// job results in bulk ([Entry], [Completion]), and the error classes that cross it ([Class]). abi.md in this folder
// is the same contract for authors in any language, with the wasm imports and exports and the native handshake.
//
// Host and plugins both import this package; it imports neither, and only the standard library and protowire. A
// plugin author in Go uses package sdk; an embedder uses package host.
//
// Compatibility: the major version is part of the wasm import module's name and of the native handshake. Within a
// major version messages and records grow only at their ends, unknown fields are kept or skipped, and new abilities
// are negotiated as named features.
package abi
