package host

import (
	"time"

	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/internal/layer"
)

// Limits protect the host. Zero values mean the defaults.
type Limits struct {
	Graph graph.Limits // documents, nesting, references
	Layer layer.Limits // members, names, attributes of one layer's tar

	LayerBytes int64 // one layer, decompressed; default 1 TiB
	LayerRatio int64 // decompressed bytes for one stored byte, beyond the first GiB; default 1100 (deflate's best is 1032)

	InFlight     int64         // bytes of file bodies being worked on, all conversions together; default 8 MiB a core, at most 64 MiB
	PluginMemory int64         // of one sandboxed plugin instance; default 2 GiB, most is 4 GiB
	PluginTime   time.Duration // one operation of a plugin; default 2 hours
	PluginStall  time.Duration // a plugin that neither calls the host nor returns; default 30 s
	OutputBase   int64         // a plugin may write this much,
	OutputFactor int64         // and this many bytes for each byte that it reads; defaults 64 MiB and 3
	Layers       int           // layers converted at the same time; default the number of cores
	Manifests    int           // images of an index converted at the same time; default the number of cores
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits { return Limits{}.withDefaults() }

func (l Limits) withDefaults() Limits {
	def(&l.LayerBytes, 1<<40)
	def(&l.LayerRatio, 1100)
	def(&l.PluginMemory, 2<<30)
	def(&l.PluginTime, 2*time.Hour)
	def(&l.PluginStall, 30*time.Second)
	def(&l.OutputBase, 64<<20)
	def(&l.OutputFactor, 3)
	return l
}

func def[T ~int | ~int64](p *T, v T) {
	if *p <= 0 {
		*p = v
	}
}
