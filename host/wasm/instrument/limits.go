package instrument

// Limits hold back modules that are cheap to send and expensive to compile or to hold. The zero value refuses
// everything; start from [DefaultLimits].
type Limits struct {
	ModuleBytes int // the file
	Functions   int // own functions
	CodeBytes   int // all bodies together
	BodyBytes   int // one body
	Locals      int // parameters and locals of one function
	Nesting     int // blocks within blocks
	Loops       int // loops within loops
	Blocks      int // blocks, loops, ifs and branches of one function
	// Work bounds (parameters + locals) × Blocks + Blocks²/32 of one function, LoopWork (parameters + locals) × its
	// loops: the compiler keeps a value for each local at each of them, and some of its passes are quadratic.
	Work     int
	LoopWork int
	// TotalWork bounds the sum of Work over all functions; WorkPerByte × the size of the module is added to it.
	TotalWork   int
	WorkPerByte int
}

// DefaultLimits returns the limits of the host. Measured on 2 cores: a unit of work takes the compiler about 1 µs at worst;
// the Go compiler's output has up to one unit a byte, 300 thousand in its largest functions, and one loop a function.
// The worst modules known within the limits take 5 to 10 seconds.
func DefaultLimits() Limits {
	return Limits{
		ModuleBytes: 64 << 20,
		Functions:   200_000,
		CodeBytes:   48 << 20,
		BodyBytes:   1 << 20,
		Locals:      4096,
		Nesting:     16_384,
		Loops:       64,
		Blocks:      16_384,
		Work:        1 << 21,
		LoopWork:    1 << 16,
		TotalWork:   1 << 22,
		WorkPerByte: 2,
	}
}

// Counts that no real module comes near; they bound what reading costs.
const (
	maxName     = 4096
	maxTypes    = 1 << 16
	maxValues   = 1000
	maxImports  = 4096
	maxExports  = 1 << 16
	maxGlobals  = 1 << 16
	maxTables   = 16
	maxTable    = 1 << 20 // elements of one table
	maxElements = 1 << 21 // elements of all segments
	maxSegments = 1 << 17
	maxTargets  = 1 << 16 // of one br_table
)
