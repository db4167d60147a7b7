package main

import (
	"fmt"
	"io"
	"math"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/convhost/convhost/host"
)

// bars shows what is in flight: a bar for each layer and each push, and one for all layers that are known so far.
type bars struct {
	p      *mpb.Progress
	total  *mpb.Bar
	flying map[string]*flight
	order  int   // of the next bar
	done   int64 // bytes of layers that are done
	known  int64 // bytes of layers that were started, or of all if the host says it in the beginning
	fixed  bool
}

type flight struct {
	bar   *mpb.Bar
	done  int64
	total int64
	layer bool
}

const barWidth = 30

func newBars(w io.Writer) *bars {
	return &bars{p: mpb.New(mpb.WithOutput(w), mpb.WithWidth(barWidth), mpb.WithAutoRefresh()), flying: map[string]*flight{}}
}

// Write puts lines above the bars.
func (b *bars) Write(p []byte) (int, error) {
	n, err := b.p.Write(p)
	if err != nil { // the bars are gone: nothing to stand above
		return len(p), nil
	}
	return n, nil
}

// add makes a bar. It is made without a total, which keeps it from ending by itself when it is full.
func (b *bars) add(name string, total int64, priority int) *mpb.Bar {
	bar := b.p.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.BarPriority(priority),
		mpb.PrependDecorators(decor.Name(name, decor.WC{C: decor.DindentRight | decor.DextraSpace | decor.DSyncWidth})),
		mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string { return size(s.Current) + " of " + size(s.Total) })))
	bar.SetTotal(total, false)
	return bar
}

// event moves the bars; name is what the event's layer is called.
func (b *bars) event(e host.Event, name string) {
	switch e.Kind {
	case host.EventResolved:
		if e.Total > 0 {
			b.known, b.fixed = e.Total, true
		}
	case host.EventLayerStarted:
		b.start(layerID(e), name, e.Total, true)
	case host.EventPushStarted:
		b.start("push "+e.Dest, "push to "+clean(e.Dest), e.Total, false)
	case host.EventLayerProgress:
		b.move(layerID(e), e.Done)
	case host.EventPushProgress:
		b.move("push "+e.Dest, e.Done)
	case host.EventLayerDone:
		b.end(layerID(e))
	case host.EventLayerReused:
		if b.fixed {
			b.done += e.Total
			b.sum()
		}
	case host.EventPublished:
		b.end("push " + e.Dest)
	}
}

func layerID(e host.Event) string {
	return fmt.Sprintf("layer %s %s %s", e.Format, e.Dest, e.Descriptor.Digest)
}

func (b *bars) start(id, name string, total int64, layer bool) {
	if b.flying[id] != nil {
		return
	}
	b.order++
	b.flying[id] = &flight{bar: b.add(name, total, b.order), total: total, layer: layer}
	if !layer {
		return
	}
	if !b.fixed {
		b.known += total
	}
	if b.total == nil {
		b.total = b.add("all layers", b.known, math.MaxInt32)
	}
	b.total.SetTotal(b.known, false)
}

func (b *bars) move(id string, done int64) {
	if f := b.flying[id]; f != nil {
		f.done = min(done, f.total)
		f.bar.SetCurrent(f.done)
		b.sum()
	}
}

func (b *bars) end(id string) {
	f := b.flying[id]
	if f == nil {
		return
	}
	delete(b.flying, id)
	f.bar.Abort(true)
	if f.layer {
		b.done += f.total
		b.sum()
	}
}

func (b *bars) sum() {
	if b.total == nil {
		return
	}
	n := b.done
	for _, f := range b.flying {
		if f.layer {
			n += f.done
		}
	}
	b.total.SetCurrent(n)
}

// finish removes all bars and waits until the terminal has been told.
func (b *bars) finish() {
	for _, f := range b.flying {
		f.bar.Abort(true)
	}
	if b.total != nil {
		b.total.Abort(true)
	}
	b.p.Wait()
}
