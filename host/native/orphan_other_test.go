//go:build !unix

package native_test

func dup(int) int { panic("no descriptors here") }

func beHost() { panic("not tested here") }
