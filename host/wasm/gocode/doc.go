// Package gocode gives functions that the Go compiler made for WebAssembly their control flow back.
//
// A goroutine can be switched at any call, so Go's code must be able to leave a function in the middle and come back. Its
// compiler therefore makes one big loop of every function. The loop begins with a br_table over the number of the next
// basic block, which is the function's only parameter; and every jump, be it an if or the step of a loop, writes the
// number of its target and goes back to the br_table:
//
//	block                      ;; way out: a call below left the stack in order to switch
//	  loop
//	    block … block          ;; one a basic block
//	      local.get 0
//	      br_table …           ;; number of a position → basic block
//	    end  … basic block 0 …
//	    end  … basic block 1 …  i32.const 7  local.set 0  br $loop …
//	  end
//	  unreachable
//	end
//	i32.const 1
//
// For a compiler of machine code that is the worst there is: nothing is known about any value at the start of a basic
// block, and all branches are one indirect jump that a processor can hardly foresee. [Module.Straighten] writes the same
// basic blocks with the branches that they mean, loops as loops, and keeps the br_table for what it is needed for: to come
// back behind a call. [Module.Reuse] then keeps in locals what the same function loads again and again from its stack frame. Plugins
// run more than twice as fast, and their code is smaller.
//
// # How
//
// Basic blocks and their jumps are a graph, whose root is the br_table with an edge to every block at which a goroutine can
// come back. Edges that would make it irreducible, which are steps of loops with calls inside, stay jumps by way of the
// br_table. The rest becomes structured code along the dominator tree (Norman Ramsey, "Beyond Relooper: recursive
// translation of unstructured control flow to structured control flow", ICFP 2022). Bodies of ifs that end in a call which
// never returns, checks for nil above all, move out of line. And accesses of a stack frame become ones with constant offsets
// from one address, so that a compiler compares it with the size of the memory once and not for each. Reuse does that for pointers
// and for the module's own variables, too. [Hasten] has faster beginnings for two of the library's functions.
//
// # What it trusts
//
// The shape is that of cmd/internal/obj/wasm in Go 1.24 to 1.26, and functions of any other shape stay as they are. Three
// things are not visible in the code, so only modules of compilers that were tested are touched, see [Supported]. A goroutine
// comes back behind a call, at a call of runtime.deferreturn, or at the start, and nowhere else; what would come back
// elsewhere traps. A frame with its arguments, and the return address below it, lie within the memory. And between two calls only
// the function itself changes its frame, by way of a pointer only if it computes an address in it. A module that only that Go made it harms itself and nobody else: what comes out is validated and limited like everything else.
//
// Package instrument, which calls this one, holds its results against the functions as they were, against Go's own tests, and
// against a program that runs natively.
//
// The facts are from Go's source, src/cmd/internal/obj/wasm/wasmobj.go and src/cmd/compile/internal/wasm/ssa.go.
package gocode
