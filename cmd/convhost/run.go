package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/containerd/log"

	"github.com/convhost/convhost/abi"
)

// app is one run of the command.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            map[string]string
	args           []string // of the process
	open           opener
	set            settings
	warnings       []string // until the console exists
	con            *console
	targets        int                // formats that are made at a time
	refs           []string           // that the command speaks of
	ask            func(error) string // finds a hint for an error of the command that ran
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	return runWith(ctx, openHost, args, stdin, stdout, stderr, env)
}

// runWith is run with another engine.
func runWith(ctx context.Context, open opener, args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, env: environment(env), args: args, open: open}
	ctx, stop := interruptible(ctx)
	defer stop()
	log.L.Logger.SetOutput(io.Discard) // containerd's log: what matters in it comes back as errors
	root := a.rootCommand()
	root.SetArgs(args[min(1, len(args)):])
	err := root.ExecuteContext(ctx)
	if err != nil {
		if ctx.Err() != nil && abi.ClassOf(err) == abi.ErrCanceled {
			err = abi.Errorf(abi.ErrCanceled, "interrupted") // and not where: that is chance
		}
		a.report(err)
	}
	return exitCode(err)
}

// interruptible ends the context at the first signal; a second one then ends the process as usual.
func interruptible(ctx context.Context) (context.Context, func()) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func environment(env []string) map[string]string {
	m := make(map[string]string, len(env))
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			m[k] = v
		}
	}
	return m
}
