package graph

// Limits bound what a graph may claim and contain. A zero field stands for its default; reaching a limit is an
// abi.ErrLimit. The defaults are far above what real images need and small enough for a service.
type Limits struct {
	Document    int64 // bytes of an index or manifest; default 4 MiB, what registries have to accept
	Config      int64 // bytes of an image config; default 8 MiB
	Nesting     int   // indexes on one path from the root; default 8
	References  int   // descriptors met while walking, shared ones each time; default 10 000, as in containerd
	Nodes       int   // distinct blobs; default 10 000
	Layers      int   // layers of one manifest; default 512 (more than 127 is a warning: overlayfs on many hosts)
	Data        int64 // bytes embedded in one descriptor; default 64 KiB
	Annotations int64 // bytes of keys and values in one annotations object; default 64 KiB
	TotalBytes  int64 // sum of the declared sizes of all distinct blobs; default 1 TiB
}

// withDefaults fills in the defaults.
func (l Limits) withDefaults() Limits {
	set := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	seti := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.Document, 4<<20)
	set(&l.Config, 8<<20)
	seti(&l.Nesting, 8)
	seti(&l.References, 10_000)
	seti(&l.Nodes, 10_000)
	seti(&l.Layers, 512)
	set(&l.Data, 64<<10)
	set(&l.Annotations, 64<<10)
	set(&l.TotalBytes, 1<<40)
	return l
}

// warnLayers is the number of layers above which some overlay mounts fail.
const warnLayers = 127
