//go:build unix && !linux

package wasm

func preferLargePages([]byte) {}
