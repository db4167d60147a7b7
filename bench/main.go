// Bench measures conversions beside those of the formats' own tools.
//
// All run in turn on the same input, so that a machine whose speed drifts disturbs none more than the others; what counts are the
// ratios of one round.
//
//	go run ./bench                                   # a made-up layer of 40,000 files of 5 KB
//	go run ./bench -layer base.tar -layer base.tar.gz -layer base.tar,app.tar -rounds 7
//	go run ./bench -format overlaybd -overlaybd-tools /opt/overlaybd/bin -layer base.tar
//
// For nydus: what a process pays for loading a plugin that it has compiled before. Then the sandboxed plugin beside the same
// code in this process and in a process of its own, and beside upstream's nydus-image when it is found. Ours are whole
// conversions of an image of the layer, or of several that commas join, from an OCI layout to another, with every digest
// checked and every file synced; nydus-image is `create --type tar-rafs` with the same options and output.
//
// For overlaybd: `convhost convert`, whole as well, with the plugin in its process and in another, beside upstream's
// overlaybd-create, overlaybd-apply and overlaybd-commit, called as upstream's convertor does, on the layers given, on
// one of 60,000 small files, on a tree of 256 MB, and on an image of which one file changed. Upstream's tools neither read an image
// nor digest one. So "plugin" is our part of the same work, from tar to layer file without an image and the layer's digest;
// and "+digests" is upstream's with the digests of tar and layer, which its convertor computes beside it. All are processes, so that CPU time, memory and what they write is measured.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	var layers, compressors list
	flag.Var(&layers, "layer", "layer tar or tar.gz, or several of an image with commas between; may be repeated")
	flag.Var(&compressors, "compressor", "zstd, lz4_block or none; may be repeated; default all")
	rounds := flag.Int("rounds", 5, "counted rounds, after one that is not")
	upstream := flag.String("nydus-image", "", "upstream's builder; default: nydus-image in the path, \"none\" for none")
	format := flag.String("format", "nydus", "nydus or overlaybd")
	tools := flag.String("overlaybd-tools", "", "directory with upstream's overlaybd-create, overlaybd-apply and overlaybd-commit")
	digest := flag.Bool("digest", false, "only print the digests of the arguments; a part of a measurement")
	convert := flag.String("convert", "", "only convert the arguments, tars of a chain of layers, into this directory; a part of a measurement")
	flag.Parse()
	var err error
	switch {
	case *digest:
		err = digests(flag.Args())
	case *convert != "":
		err = convertTars(*convert, flag.Args())
	case *format == "nydus":
		err = run(layers, compressors, *rounds, *upstream)
	case *format == "overlaybd":
		err = runOverlaybd(layers, *rounds, *tools)
	default:
		err = fmt.Errorf("format %s: want nydus or overlaybd", *format)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(layers, compressors []string, rounds int, upstream string) error {
	dir, err := os.MkdirTemp("", "convhost-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if len(layers) == 0 {
		small := filepath.Join(dir, "small-files.tar")
		if err := writeSmallFiles(small, 40_000, 5<<10); err != nil {
			return err
		}
		layers = []string{small}
	}
	if len(compressors) == 0 {
		compressors = []string{"zstd", "lz4_block", "none"}
	}
	if upstream == "" {
		upstream, _ = exec.LookPath("nydus-image")
	}
	if upstream == "" || upstream == "none" {
		fmt.Println("nydus-image is not here: ours only")
		upstream = ""
	}
	fmt.Printf("%s, %s/%s, GOMAXPROCS %d, %d rounds\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), rounds)
	if err := measureStart(dir, rounds); err != nil {
		return err
	}
	for _, layer := range layers {
		for _, c := range compressors {
			if err := measure(dir, layer, c, rounds, upstream); err != nil {
				return err
			}
		}
	}
	return nil
}

// subject is one of the programs that are compared.
type subject struct {
	name string
	run  func(ctx context.Context) (outputBytes int64, err error)
	took []time.Duration
	size int64
}

func measure(dir, layer, compressor string, rounds int, upstream string) error {
	work, err := os.MkdirTemp(dir, "run")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	subjects, done, err := ours(work, layer, compressor)
	if err != nil {
		return err
	}
	defer done()
	if upstream != "" && !strings.Contains(layer, ",") {
		subjects = append(subjects, nydusImage(work, layer, compressor, upstream))
	}
	for round := -1; round < rounds; round++ {
		for _, s := range subjects {
			start := time.Now()
			size, err := s.run(context.Background())
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if s.size = size; round >= 0 {
				s.took = append(s.took, time.Since(start))
			}
		}
	}
	report(layer, compressor, subjects)
	return nil
}

func report(layer, compressor string, subjects []*subject) {
	var names []string
	var mb float64
	for _, file := range strings.Split(layer, ",") {
		st, err := os.Stat(file)
		if err != nil {
			return
		}
		names = append(names, filepath.Base(file))
		mb += float64(st.Size()) / 1e6
	}
	fmt.Printf("\n%s, %.1f MB, %s\n", strings.Join(names, " + "), mb, compressor)
	fmt.Printf("  %-12s %9s %9s %9s %8s %10s   speed against in process [min..max]\n", "", "median s", "min", "max", "MB/s", "output")
	base := subjects[0]
	for _, s := range subjects {
		t := slices.Sorted(slices.Values(s.took))
		mid := t[len(t)/2]
		var ratios []float64
		for i := range s.took {
			ratios = append(ratios, base.took[i].Seconds()/s.took[i].Seconds())
		}
		slices.Sort(ratios)
		fmt.Printf("  %-12s %9.3f %9.3f %9.3f %8.0f %10d   %.2f [%.2f..%.2f]\n", s.name, mid.Seconds(), t[0].Seconds(), t[len(t)-1].Seconds(),
			mb/mid.Seconds(), s.size, ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
	}
	last := subjects[len(subjects)-1]
	if last.name != "nydus-image" {
		return
	}
	for _, s := range subjects[:len(subjects)-1] {
		var ratios []float64
		for i := range s.took {
			ratios = append(ratios, last.took[i].Seconds()/s.took[i].Seconds())
		}
		slices.Sort(ratios)
		fmt.Printf("  %-12s %.2f times as fast as nydus-image [%.2f..%.2f], output %.3f times as large\n",
			s.name, ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1], float64(s.size)/float64(last.size))
	}
}
