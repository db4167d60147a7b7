package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/transport"
)

// settings are the flags that all commands have. Each can also stand in the configuration file and in the environment.
type settings struct {
	pluginDirs        []string
	cacheDir          string
	workDir           string
	stateDir          string
	dedup             string
	dedupPasswordFile string
	store             dedup.Store // for this run; nil for none
	jobs              int
	runtime           string
	limits            host.Limits

	plainHTTP bool
	tlsVerify bool
	authFile  string
	caFiles   []string
	certDirs  []string
	creds     string
	credsFile string
	credsHost string
	user      string // of creds or credsFile
	password  string
	certFile  string
	keyFile   string

	config   string
	json     bool
	quiet    bool
	verbose  int
	logLevel string
	progress string

	flags *pflag.FlagSet
}

// Values of --progress.
const (
	progressAuto  = "auto"
	progressBar   = "bar"
	progressPlain = "plain"
	progressJSON  = "json"
	progressNone  = "none"
)

var (
	progressModes = []string{progressAuto, progressBar, progressPlain, progressJSON, progressNone}
	logLevels     = []string{"error", "warn", "info", "debug"}
	runtimes      = []string{string(host.RuntimeWasm), string(host.RuntimeNative), string(host.RuntimeInProcess)}
)

// register adds the flags of all commands.
func (s *settings) register(f *pflag.FlagSet) {
	s.flags = f
	s.limits = host.DefaultLimits()
	f.StringVar(&s.config, "config", "", "configuration `FILE`; default convhost/config.yaml in the user's configuration directory")
	f.BoolVar(&s.json, "json", false, "print the result as one JSON document")
	f.BoolVarP(&s.quiet, "quiet", "q", false, "no progress and no warnings")
	f.CountVarP(&s.verbose, "verbose", "v", "log more; twice for everything")
	f.Var(oneOf(&s.logLevel, "warn", logLevels), "log-level", "log from `error|warn|info|debug` on")
	f.Var(oneOf(&s.progress, progressAuto, progressModes), "progress", "show progress on standard error as `bar|plain|json|none`, or auto: by what that is")

	f.Var(oneOf(&s.runtime, "", runtimes), "runtime", "run plugins as `wasm|native|inprocess`; default the first that a plugin has; wasm is sandboxed")
	f.Var(&dirList{list: &s.pluginDirs}, "plugin-dir", "search plugins in `DIR` too, before those that come with convhost (repeatable)")
	f.StringVar(&s.cacheDir, "cache-dir", "", "keep compiled plugins in `DIR`, empty for nowhere; default convhost/plugins in the user's cache directory")
	f.StringVar(&s.workDir, "work-dir", "", "keep blobs in `DIR` while working; default the system's temporary directory")
	f.StringVar(&s.dedup, "dedup", "", "remember conversions, and reuse earlier ones, in `DIR|URL|off`; default convhost/dedup in the user's cache directory; see convhost dedup --help")
	f.StringVar(&s.dedupPasswordFile, "dedup-password-file", "", "take the password of --dedup's database from the first line of `FILE`; default CONVHOST_DEDUP_PASSWORD")
	f.StringVar(&s.stateDir, "state-dir", "", "write down in `DIR` what is attached; default /run/convhost for root, else convhost in $XDG_RUNTIME_DIR")
	f.IntVar(&s.jobs, "jobs", 0, "use `N` cores; default all")

	f.BoolVar(&s.plainHTTP, "plain-http", false, "talk to registries without TLS")
	f.BoolVar(&s.tlsVerify, "tls-verify", true, "check certificates of registries")
	f.StringVar(&s.authFile, "authfile", "", "take credentials from `FILE`, a docker config; default docker's own")
	f.StringVar(&s.creds, "creds", "", "use the credentials `USER:PASSWORD` instead; others can see arguments: better in CONVHOST_CREDS or --creds-file")
	f.StringVar(&s.credsFile, "creds-file", "", "use the credentials in the first line of `FILE`, USER:PASSWORD; - is standard input")
	f.StringVar(&s.credsHost, "creds-host", "", "use --creds or --creds-file for the registry `HOST[:PORT]` only; needed where a command talks to several")
	f.Var(&fileList{list: &s.caFiles}, "ca-file", "trust the root certificates in `FILE` (PEM) too (repeatable)")
	f.Var(&dirList{list: &s.certDirs}, "cert-dir", "take certificates from `DIR` as from docker's certs.d: *.crt to trust, *.cert with *.key to show, there and in DIR/HOST (repeatable)")
	f.StringVar(&s.certFile, "cert-file", "", "show registries the client certificate in `FILE` (PEM)")
	f.StringVar(&s.keyFile, "key-file", "", "key of the client certificate in `FILE` (PEM)")

	l := &s.limits
	f.Var((*byteSize)(&l.PluginMemory), "limit-memory", "a sandboxed plugin instance may take `SIZE` of memory")
	f.DurationVar(&l.PluginTime, "limit-time", l.PluginTime, "one operation of a plugin may take this `TIME`")
	f.DurationVar(&l.PluginStall, "limit-stall", l.PluginStall, "a plugin may compute for this `TIME` without asking the host for anything")
	f.Var((*byteSize)(&l.LayerBytes), "limit-layer-size", "a layer may have `SIZE`, decompressed")
	f.Int64Var(&l.LayerRatio, "limit-ratio", l.LayerRatio, "a layer may have `N` decompressed bytes for each stored byte")
	f.Var((*byteSize)(&l.OutputBase), "limit-output-base", "a plugin may write `SIZE` for each layer, …")
	f.Int64Var(&l.OutputFactor, "limit-output-factor", l.OutputFactor, "… and `N` bytes for each byte that it reads")
	f.Var((*byteSize)(&l.InFlight), "limit-in-flight", "hold `SIZE` of file bodies in memory at a time; default 8 MiB a core, at most 64 MiB")
	f.IntVar(&l.Layers, "limit-layers", 0, "convert `N` layers at a time; default the number of cores")
	f.IntVar(&l.Manifests, "limit-manifests", 0, "convert `N` images of an index at a time; default the number of cores")
}

// prepare completes and checks the settings before the engine is opened.
func (s *settings) prepare(a *app) error {
	if s.jobs < 0 {
		return abi.Errorf(abi.ErrInvalid, "--jobs is %d, want 1 or more", s.jobs)
	}
	if !given(s.flags, "plugin-dir") {
		if dir, err := os.UserConfigDir(); err == nil {
			s.pluginDirs = []string{filepath.Join(dir, "convhost", "plugins")}
		}
	}
	for _, dir := range s.pluginDirs {
		if _, err := os.Stat(dir); err != nil && given(s.flags, "plugin-dir") {
			return fileError(err, "plugin directory")
		}
	}
	if err := s.prepareCreds(a); err != nil {
		return err
	}
	return s.prepareCache(a)
}

// stateDirectory is where attachments are written down.
func (s *settings) stateDirectory() string {
	if s.stateDir != "" {
		return s.stateDir
	}
	return host.DefaultStateDir()
}

// prepareCache makes the directory of compiled plugins. One that was asked for must work; without the default one,
// plugins are compiled each time.
func (s *settings) prepareCache(a *app) error {
	asked := given(s.flags, "cache-dir")
	if asked && s.cacheDir == "" {
		return nil
	}
	var err error
	if !asked {
		var dir string
		if dir, err = os.UserCacheDir(); err == nil {
			s.cacheDir = filepath.Join(dir, "convhost", "plugins")
		}
	}
	if err == nil {
		err = writable(s.cacheDir)
	}
	switch {
	case err == nil:
		return nil
	case asked:
		return withHint(fileError(err, "cache directory"), "--cache-dir names another directory; empty, plugins are compiled each time")
	}
	s.cacheDir = ""
	a.warnings = append(a.warnings, "no cache of compiled plugins: "+err.Error())
	return nil
}

// writable makes a directory for this user alone and tries to write to it.
func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".try-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// fileError gives an error of the operating system its class. Its text names the path.
func fileError(err error, what string) error {
	class := abi.ErrIO
	switch {
	case errors.Is(err, fs.ErrNotExist):
		class = abi.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		class = abi.ErrDenied
	case errors.Is(err, fs.ErrExist):
		class = abi.ErrExists
	}
	return abi.Errorf(class, "%s: %w", what, err)
}

func (s *settings) transportOptions(log *slog.Logger) transport.Options {
	return transport.Options{
		TempDir: s.workDir, Logger: log, PlainHTTP: s.plainHTTP, InsecureTLS: !s.tlsVerify,
		CAFiles: s.caFiles, CertDirs: s.certDirs, CertFile: s.certFile, KeyFile: s.keyFile, AuthFile: s.authFile,
		Username: s.user, Password: s.password, CredentialsHost: s.credsHost,
		UserAgent: "convhost/" + moduleVersion(),
	}
}

func (s *settings) level() slog.Level {
	level := map[string]slog.Level{"error": slog.LevelError, "warn": slog.LevelWarn, "info": slog.LevelInfo, "debug": slog.LevelDebug}[s.logLevel]
	switch {
	case s.verbose > 1:
		level = slog.LevelDebug
	case s.verbose == 1:
		level = min(level, slog.LevelInfo)
	case s.quiet:
		level = slog.LevelError
	}
	return level
}

// given tells whether a setting was made: by a flag, the environment or the file.
func given(f *pflag.FlagSet, name string) bool {
	fl := f.Lookup(name)
	return fl != nil && fl.Changed
}
