// Command guest is the plugin of the tests of package wasm. The request says what it does: a verb and its arguments.
package main

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
	"unsafe"
)

//go:wasmimport convhost.v1 ctl_read
//go:noescape
func ctlRead(p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 ctl_write
//go:noescape
func ctlWrite(p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 fail
//go:noescape
func hostFail(class int32, p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 read
//go:noescape
func hostRead(h int32, p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 size
func hostSize(h int32) int64

//go:wasmimport convhost.v1 log
//go:noescape
func hostLog(level int32, p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 encode
//go:noescape
func hostEncode(codec, level int32, src unsafe.Pointer, n uint32, dst unsafe.Pointer, size uint32) int64

//go:wasmimport convhost.v1 sum
func hostSum(alg int32, p, n, out uint32) int64

var sink uint64

var keep []byte

//go:wasmexport convhost_v1_call
func call(op int32) int32 {
	n := ctlRead(nil, 0)
	req := make([]byte, n)
	ctlRead(unsafe.Pointer(unsafe.SliceData(req)), uint32(n))
	verb, arg, _ := strings.Cut(string(req), " ")
	switch verb {
	case "echo":
		reply(arg)
	case "panic":
		panic(arg)
	case "nil":
		var p *[4]int
		sink = uint64(p[len(arg)])
	case "exit":
		os.Exit(len(arg))
	case "deadlock":
		select {}
	case "spin":
		for i := uint64(0); ; i++ {
			sink += i
		}
	case "memset":
		b := make([]byte, 32<<20)
		for {
			clear(b)
		}
	case "recurse":
		sink = fib(uint64(80))
		reply("done")
	case "spinlog":
		for {
			hostLog(0, unsafe.Pointer(unsafe.StringData(arg)), uint32(len(arg)))
		}
	case "grow":
		var keep [][]byte
		for {
			keep = append(keep, make([]byte, 1<<20))
			sink += uint64(len(keep))
		}
	case "flood":
		line := strings.Repeat("x", 1<<16)
		for range 4096 {
			fmt.Fprintln(os.Stderr, line)
		}
		reply("done")
	case "garbage":
		for range 16384 {
			keep = make([]byte, 1<<16)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		reply(fmt.Sprint(m.NumGC, " ", m.Sys>>20))
	case "logs":
		for range 100_000 {
			hostLog(0, unsafe.Pointer(unsafe.StringData(arg)), uint32(len(arg)))
		}
		reply("done")
	case "pointer":
		hostSum(1, 0xfffffff0, 64, 0)
	case "huge":
		hostSum(1, 1<<16, 0xffffffff, 0)
	case "out":
		hostSum(1, 1<<16, 1, 0xfffffff8)
	case "overlap":
		b := make([]byte, 100)
		hostEncode(1, 0, unsafe.Pointer(&b[0]), 64, unsafe.Pointer(&b[32]), 64)
	case "handle":
		code := hostSize(77)
		hostFail(int32(-code), nil, 0)
		return 1
	case "silent":
		return 1
	case "status":
		return 99
	case "unknown":
		return 2
	case "clock":
		start := time.Now()
		time.Sleep(time.Hour)
		var seed [8]byte
		f, err := os.Open("/etc/passwd")
		reply(fmt.Sprint(start.Unix() > 1.6e9, time.Since(start) >= time.Hour, seed, f == nil, err != nil, len(os.Args), os.Environ()))
	case "now":
		reply(fmt.Sprint(time.Now().UnixNano(), &sink))
	case "ignore":
		for i := 0; ; i++ {
			hostSize(77)
		}
	case "work":
		h := hash(make([]byte, 1<<20))
		reply(string(binary.LittleEndian.AppendUint64(nil, h)))
	case "sort":
		m := map[string]int{}
		for i := range 20_000 {
			m[fmt.Sprint(i*7919%100_003)] = i
		}
		keys := slices.Sorted(maps.Keys(m))
		reply(keys[100])
	}
	return 0
}

//go:noinline
func hash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for range 64 {
		for i := range b {
			h = (h ^ uint64(b[i])) * 1099511628211
			b[i] = byte(h)
		}
	}
	return h
}

//go:noinline
func fib(n uint64) uint64 {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}

func reply(s string) { ctlWrite(unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))) }

func main() {}
