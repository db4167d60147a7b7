// Package accel executes the plans of the plugin contract: it cuts bytes into chunks, digests them, finds equal ones,
// compresses the others and appends them to a sink in submission order, on all cores; or it does the reverse, reading
// stored ranges, decoding and verifying them and writing the result in order. Host and native plugins share it; it is
// not meant for wasm guests, which reach the host's through imports.
//
// One [Pool] serves a whole host: it owns the worker goroutines, their codec state, the recycled buffers and a budget
// of bytes in flight that all conversions share. One [Queue] serves one plugin operation:
//
//	q := pool.NewQueue(ctx, accel.Limits{})
//	defer q.Close()
//	sink := q.NewSink(w)
//	plan, err := q.NewPlan(&abi.PlanSpec{ChunkSize: 1 << 20, Digest: abi.DigestSHA256, Codec: abi.CodecZstd,
//		KeepRaw: true, Dedup: abi.DedupPlan}, sink)
//	n, err := q.Stream(plan, r, size, tag) // any number of jobs
//	info, err := q.ClosePlan(plan)         // waits
//	used, err := q.Collect(buf, 0)         // completion records, see abi.Completion
//
// # How it works
//
// The submitting goroutine copies bytes into a unit: one big chunk, or many small ones. Workers take units from one
// channel, digest and compress. One committer goroutine per queue takes the units in submission order, decides
// which chunk is a duplicate, writes and produces completions. What is written and reported is therefore a function
// of the jobs alone, not of the number of workers.
//
// A worker does not compress a chunk if an equal one was seen at a lower position of the same plan. That one commits
// earlier, so the chunk is certainly a duplicate; a chunk that must be stored is never left out.
//
// # Memory
//
// A unit reserves the size of its input and output buffers from the pool's budget before it is filled. A queue that
// holds nothing is always served, whatever is left: so each queue progresses by one chunk even if that chunk is
// larger than the budget, and no two queues can wait for each other. Uncollected completions and distinct chunks of a
// plan have limits, see [Limits].
//
// # Errors
//
// The first error of a queue sticks: all later calls return it. The exception is abi.ErrUnsupported from NewPlan.
// Each error wraps one class of package abi; errors of sinks and readers without a class are abi.ErrIO.
// A cancelled context ends every call at once, except Close, which waits for what a worker or a sink is doing.
package accel
