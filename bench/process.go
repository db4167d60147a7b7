package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// process is a subject whose work is done by other processes.
type process struct {
	name      string
	reference bool // what the others are compared with
	run       func(ctx context.Context, s *sample) error
	samples   []sample
}

// sample is what one run cost. Memory is that of the largest process.
type sample struct {
	wall, cpu       time.Duration
	memory, written int64 // bytes; 0 where the system does not tell
	output          int64 // bytes of the layer that was made
}

// exec runs a program and adds its costs, with those of the processes that it waited for.
func (s *sample) exec(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out.Bytes()[max(0, out.Len()-2000):])
	}
	s.wall += time.Since(start)
	s.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	memory, written := usage(cmd.ProcessState)
	s.memory, s.written = max(s.memory, memory), s.written+written
	return nil
}

// compare runs all subjects in turn, rounds times after one that does not count, and prints what they cost.
func compare(title string, subjects []*process, rounds int) error {
	for round := -1; round < rounds; round++ {
		for _, p := range subjects {
			var s sample
			if err := p.run(context.Background(), &s); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if round >= 0 {
				p.samples = append(p.samples, s)
			}
		}
	}
	fmt.Printf("\n%s\n  %-10s %8s %8s %8s %8s %10s %12s\n", title, "", "wall s", "least", "CPU s", "least", "memory MB", "written MB")
	for _, p := range subjects {
		wall := sorted(p.samples, func(s sample) float64 { return s.wall.Seconds() })
		cpu := sorted(p.samples, func(s sample) float64 { return s.cpu.Seconds() })
		memory := sorted(p.samples, func(s sample) float64 { return float64(s.memory) / 1e6 })
		written := sorted(p.samples, func(s sample) float64 { return float64(s.written) / 1e6 })
		fmt.Printf("  %-10s %8.3f %8.3f %8.3f %8.3f %10.1f %12.1f   layer of %d bytes\n", p.name, median(wall), wall[0], median(cpu), cpu[0],
			memory[len(memory)-1], median(written), p.samples[0].output)
	}
	for _, base := range subjects {
		for _, p := range subjects {
			if !base.reference || p.reference {
				continue
			}
			fmt.Printf("  %-10s against %-9s %s in wall time, %s in CPU time, layer %.3f times as large\n", p.name, base.name+":",
				ratios(base, p, func(s sample) float64 { return s.wall.Seconds() }),
				ratios(base, p, func(s sample) float64 { return s.cpu.Seconds() }),
				float64(p.samples[0].output)/float64(base.samples[0].output))
		}
	}
	return nil
}

func sorted(all []sample, of func(sample) float64) (out []float64) {
	for _, s := range all {
		out = append(out, of(s))
	}
	slices.Sort(out)
	return out
}

func median(sorted []float64) float64 { return sorted[len(sorted)/2] }

// ratios says how many times as fast p was as base: the median of the rounds, and the ends.
func ratios(base, p *process, of func(sample) float64) string {
	var all []float64
	for i := range p.samples {
		all = append(all, of(base.samples[i])/of(p.samples[i]))
	}
	slices.Sort(all)
	return strings.TrimSpace(fmt.Sprintf("%.2f times as fast [%.2f..%.2f]", median(all), all[0], all[len(all)-1]))
}
