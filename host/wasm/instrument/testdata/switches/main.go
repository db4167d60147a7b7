// Switches leaves functions in the middle in every way that Go has, and prints what it saw. Its output must be the same
// natively, in the sandbox, and after the sandbox's code was straightened.
package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"reflect"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
)

func main() {
	for _, part := range []struct {
		name string
		run  func() any
	}{
		{"recover", recovers}, {"defers", defers}, {"goexit", goexit}, {"deep", deep}, {"channels", channels}, {"select", selects},
		{"iterators", iterators}, {"sort", sorts}, {"maps", mapsOfMaps}, {"reflection", reflection}, {"garbage", garbage},
		{"loops", loops}, {"closures", closures}, {"mutex", mutex}, {"runtime errors", runtimeErrors},
	} {
		fmt.Println(part.name, part.run())
	}
	defer fmt.Println("not seen")
	os.Exit(0)
}

func try(f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("caught %v", r)
		}
	}()
	f()
	return nil
}

func recovers() any {
	var out []string
	for i := range 6 {
		err := try(func() {
			for k := range 5 {
				if k == i {
					panic(fmt.Sprint("at ", k))
				}
				if inner := try(func() { panic(k) }); inner == nil {
					panic("lost")
				}
			}
		})
		out = append(out, fmt.Sprint(err))
	}
	return out
}

func defers() (out any) {
	var log []int
	func() {
		for i := range 5 { // a defer in a loop, on the heap
			defer func() { log = append(log, i) }()
		}
		if len(os.Args) < 100 { // open-coded, under a condition
			defer func() { log = append(log, -1, recover().(int)) }()
		}
		panic(7)
	}()
	defer func() { out = append(log, -2) }()
	return nil
}

func goexit() any {
	done := make(chan string)
	go func() {
		defer close(done)
		defer func() { done <- fmt.Sprint("deferred ", recover()) }()
		runtime.Goexit()
		done <- "went on"
	}()
	return <-done
}

func fib(n int) int { // switches and grows the stack at any depth
	var pad [100]int
	pad[n] = n
	if n < 2 {
		return pad[n]
	}
	if n == 9 {
		runtime.Gosched()
	}
	return fib(n-1) + fib(n-2) + pad[0]
}

func dive(n int, text string) int {
	if n == 0 {
		return len(text)
	}
	var pad [64]byte
	pad[n%64] = 1
	return dive(n-1, text) + int(pad[n%64]) - 1
}

func deep() any {
	var wg sync.WaitGroup
	var sums [4]int
	for i := range sums {
		wg.Go(func() { sums[i] = fib(15+i) + dive(20_000*(i+1), "x") })
	}
	wg.Wait()
	return sums
}

func channels() any {
	numbers, squares := make(chan int), make(chan int, 3)
	go func() {
		defer close(numbers)
		for i := range 100 {
			numbers <- i
		}
	}()
	for range 3 {
		go func() {
			for n := range numbers {
				squares <- n * n
			}
			squares <- -1
		}()
	}
	sum, ended := 0, 0
	for ended < 3 {
		if n := <-squares; n < 0 {
			ended++
		} else {
			sum += n
		}
	}
	return sum
}

func selects() any {
	ctx, cancel := context.WithCancelCause(context.Background())
	ticks, n := make(chan int), 0
	go func() {
		for i := 0; ; i++ {
			select {
			case ticks <- i:
			case <-ctx.Done():
				close(ticks)
				return
			}
		}
	}()
	for i := range ticks {
		n += i
		if i == 50 {
			cancel(errors.New("enough"))
			break
		}
	}
	return fmt.Sprint(n, context.Cause(ctx))
}

func iterators() any {
	var walk func(n int) iter.Seq[int]
	walk = func(n int) iter.Seq[int] {
		return func(yield func(int) bool) {
			for i := range n {
				if !yield(i) {
					return
				}
				for k := range walk(i) {
					if !yield(k * 10) {
						return
					}
				}
			}
		}
	}
	var out []int
	next, stop := iter.Pull(walk(5))
	defer stop()
	for range 20 {
		v, ok := next()
		if !ok {
			break
		}
		out = append(out, v)
	}
outer:
	for a := range walk(6) {
		for b := range walk(3) {
			switch {
			case a == 3:
				continue outer
			case a*b > 40:
				break outer
			}
			defer func() { out = append(out, a) }()
		}
	}
	return out
}

type pair struct {
	name string
	n    uint64
}

func sorts() any {
	x := uint64(88172645463325252)
	var p []pair
	for range 3000 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		p = append(p, pair{fmt.Sprint(x % 500), x})
	}
	slices.SortFunc(p, func(a, b pair) int { return strings.Compare(a.name, b.name) })
	sort.SliceStable(p, func(i, k int) bool { return p[i].n < p[k].n })
	var s []uint64
	for _, q := range p {
		s = append(s, q.n*31)
	}
	slices.Sort(s)
	return []any{p[0], p[2999], s[0], s[1500], slices.IsSorted(s)}
}

func mapsOfMaps() any {
	m := map[string]map[int]string{}
	for i := range 2000 {
		k := fmt.Sprint("k", i%37)
		if m[k] == nil {
			m[k] = map[int]string{}
		}
		m[k][i] = k
		if i%5 == 0 {
			delete(m[k], i/2)
		}
	}
	n := 0
	for _, inner := range m {
		n += len(inner)
	}
	return []any{n, slices.Sorted(maps.Keys(m))[:3]}
}

func reflection() any {
	f := reflect.MakeFunc(reflect.TypeFor[func(int, string) (string, error)](), func(in []reflect.Value) []reflect.Value {
		return []reflect.Value{reflect.ValueOf(strings.Repeat(in[1].String(), int(in[0].Int()))), reflect.Zero(reflect.TypeFor[error]())}
	})
	out := f.Call([]reflect.Value{reflect.ValueOf(3), reflect.ValueOf("ab")})
	return fmt.Sprint(out[0], out[1].IsNil(), reflect.ValueOf(errors.New("e")).MethodByName("Error").Call(nil)[0])
}

type tree struct{ left, right *tree }

func grow(n int) *tree {
	if n == 0 {
		return &tree{}
	}
	return &tree{grow(n - 1), grow(n - 1)}
}

func (t *tree) count() int {
	if t == nil {
		return 0
	}
	return 1 + t.left.count() + t.right.count()
}

func garbage() any {
	kept := grow(12)
	sum := 0
	for i := range 30 {
		sum += grow(i % 10).count()
		if i%10 == 0 {
			runtime.GC()
		}
	}
	return []int{kept.count(), sum}
}

func loops() any {
	var out []int
	for i := 0; i < 10; i++ {
		k := i
	again:
		for n := range k {
			if n*i%3 == 2 {
				continue
			}
			if n > 7 {
				goto done
			}
			out = append(out, n*i)
		}
		if k > 5 {
			k -= 3
			goto again
		}
	}
done:
	sum := 0
	for i, s := range strings.Fields(strings.Repeat("a bb ccc ", 50)) {
		switch s {
		case "a":
			sum += i
		case "bb":
			if i%2 == 0 {
				break
			}
			fallthrough
		case "ccc":
			sum += 2 * i
		}
	}
	return append(out[:min(20, len(out))], sum)
}

func closures() any {
	compose := func(fs ...func(int) int) func(int) int {
		return func(x int) int {
			for _, f := range fs {
				x = f(x)
			}
			return x
		}
	}
	n := 0
	add := func(x int) int { n++; return x + n }
	return compose(add, func(x int) int { return x * x }, add, compose(add, add))(3)
}

func mutex() any {
	var mu sync.Mutex
	var wg sync.WaitGroup
	total := 0
	for i := range 20 {
		wg.Go(func() {
			for range 50 {
				mu.Lock()
				before := total
				runtime.Gosched()
				total = before + i
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return total
}

func runtimeErrors() any {
	var none *tree
	var empty []int
	var nothing any
	zero := len(empty)
	var out []string
	for _, f := range []func(){
		func() { none.left = nil },
		func() { empty[zero]++ },
		func() { _ = empty[:zero+1] },
		func() { _ = 1 / zero },
		func() { _ = nothing.(string) },
		func() { var m map[string]int; m["a"] = 1 },
		func() { var c chan int; close(c) },
		func() { _ = make([]int, zero-1) },
		func() { panic(errors.Join(errors.New("a"), errors.New("b"))) },
	} {
		out = append(out, fmt.Sprint(try(f)))
	}
	return strings.Join(out, "; ")
}
