package main

import (
	"context"
	"log/slog"

	"github.com/convhost/convhost/host"
)

// engine is what commands need of a host. Tests put something else in its place.
type engine interface {
	Convert(context.Context, host.ConvertRequest) ([]host.Result, error)
	Verify(context.Context, host.VerifyRequest) ([]host.VerifyResult, error)
	Unpack(context.Context, host.UnpackRequest) (*host.UnpackResult, error)
	Check(context.Context, host.CheckRequest) ([]host.CheckResult, error)
	Attach(context.Context, host.AttachRequest) (*host.Attachment, error)
	Detach(context.Context, host.DetachRequest) error
	Attachments(context.Context) ([]host.AttachmentInfo, error)
	Graph(ctx context.Context, ref string) (*host.GraphResult, error)
	Inspect(ctx context.Context, ref string) (*host.InspectResult, error)
	Plugins(context.Context) []host.PluginInfo
	Plugin(ctx context.Context, format string, rt host.Runtime) (host.PluginInfo, error)
	Close() error
}

// opener makes an engine of the settings.
type opener func(set *settings, events func(host.Event), log *slog.Logger) (engine, error)

func openHost(set *settings, events func(host.Event), log *slog.Logger) (engine, error) {
	own, err := builtins()
	if err != nil {
		return nil, err
	}
	opts := []host.Option{
		host.WithPluginDir(set.pluginDirs...),
		host.WithBuiltin(own...),
		host.WithCacheDir(set.cacheDir),
		host.WithWorkDir(set.workDir),
		host.WithStateDir(set.stateDirectory()),
		host.WithLimits(set.limits),
		host.WithLogger(log),
		host.WithEvents(events),
		host.WithTransport(set.transportOptions(log)),
	}
	if set.store != nil {
		opts = append(opts, host.WithDedup(set.store))
	}
	if set.jobs > 0 {
		opts = append(opts, host.WithJobs(set.jobs))
	}
	return host.New(opts...)
}

// withEngine opens the engine for the time of fn, with progress on standard error.
func (a *app) withEngine(ctx context.Context, fn func(context.Context, engine) error) error {
	if err := a.set.prepare(a); err != nil {
		return err
	}
	a.con = newConsole(a)
	defer a.con.finish()
	for _, w := range a.warnings {
		a.con.warn(w)
	}
	e, err := a.open(&a.set, a.con.event, a.con.logger(a.set.level()))
	if err != nil {
		return err
	}
	err = fn(ctx, e)
	if err != nil && a.ask != nil { // while the engine can still be asked
		if hint := a.hint(err); hint != "" {
			err = &hinted{err, hint}
		}
	}
	a.ask = nil
	if e := e.Close(); err == nil {
		err = e
	}
	return err
}
