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
	Blocks      int // blocks, loops and ifs of one function
	// Work bounds (parameters + locals) × (blocks + branches) of one function: the compiler keeps one value for each local at
	// each block, so its time and memory grow with the product.
	Work int
	// TotalWork bounds the sum of that product over all functions.
	TotalWork int
}

// DefaultLimits returns the limits of the host; see the package's tests for the margins.
func DefaultLimits() Limits {
	return Limits{
		ModuleBytes: 64 << 20,
		Functions:   200_000,
		CodeBytes:   48 << 20,
		BodyBytes:   2 << 20,
		Locals:      4096,
		Nesting:     16_384,
		Blocks:      65_536,
		Work:        1 << 20,
		TotalWork:   1 << 28,
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
