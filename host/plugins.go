package host

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
)

// Runtime says how a plugin is run.
type Runtime string

// Runtimes. The default takes the first that the plugin has, in this order.
const (
	RuntimeDefault   Runtime = ""
	RuntimeWasm      Runtime = "wasm"      // sandboxed: no file, socket, clock or randomness; limits hold
	RuntimeNative    Runtime = "native"    // a process of its own: crashes are contained, the code is trusted
	RuntimeInProcess Runtime = "inprocess" // in this process: the code is trusted
)

// Builtin is a plugin that comes with the program, in one or more runtimes.
type Builtin struct {
	Name      string
	Wasm      func() ([]byte, error) // the module, plain or compressed with gzip or zstd
	Native    []string               // a command that serves the plugin
	InProcess abi.Guest
}

// PluginInfo is what can be said of a plugin without running it on data.
type PluginInfo struct {
	Name        string          `json:"name"`
	Runtime     Runtime         `json:"runtime"`
	Path        string          `json:"path,omitempty"` // "" if built in
	Digest      string          `json:"digest,omitempty"`
	Description abi.Description `json:"description"`
	Err         error           `json:"-"`
}

// plugin is a loaded one.
type plugin struct {
	info PluginInfo
	run  runner
}

// registry finds and loads plugins, each once.
type registry struct {
	cfg  *config
	lock chan struct{} // holds one value while a plugin is loaded, which may take long: waiting for it can be given up
	got  map[candidate]*plugin
	bad  map[candidate]error // plugins that list could not load
	carriers
}

// candidate is where a plugin can be had from.
type candidate struct {
	name    string
	runtime Runtime
	path    string // "" if built in
}

func newRegistry(cfg *config) *registry {
	return &registry{cfg: cfg, lock: make(chan struct{}, 1), got: map[candidate]*plugin{}, bad: map[candidate]error{}, carriers: carriers{cfg: cfg}}
}

const nativePrefix = "convhost-plugin-"

// get returns the plugin that format names: a name, or the path of a module or an executable.
func (r *registry) get(ctx context.Context, format string, rt Runtime) (*plugin, error) {
	c, err := r.find(format, rt)
	if err != nil {
		return nil, err
	}
	return r.load(ctx, c)
}

func (r *registry) load(ctx context.Context, c candidate) (*plugin, error) {
	select {
	case r.lock <- struct{}{}:
		defer func() { <-r.lock }()
	case <-ctx.Done():
		return nil, canceled(ctx)
	}
	if p := r.got[c]; p != nil {
		return p, nil
	}
	p, err := r.start(ctx, c)
	if err != nil {
		err = &Error{Op: "load plugin " + c.String(), Layer: -1, Err: err}
		if ctx.Err() == nil {
			r.bad[c] = err
		}
		return nil, err
	}
	r.got[c] = p
	delete(r.bad, c)
	return p, nil
}

// start opens a plugin and asks what it is; one that has no good answer does not stay.
func (r *registry) start(ctx context.Context, c candidate) (*plugin, error) {
	run, err := r.open(ctx, c)
	if err != nil {
		return nil, err
	}
	desc, err := describe(ctx, run)
	if err == nil {
		err = checkDescription(&desc, c)
	}
	if err != nil {
		if cerr := run.close(); cerr != nil {
			r.cfg.log.Warn("a plugin that was refused could not be ended", "plugin", c.String(), "error", cerr)
		}
		return nil, err
	}
	r.runners = append(r.runners, run)
	return &plugin{run: run, info: PluginInfo{Name: desc.Name, Runtime: c.runtime, Path: c.path, Digest: run.digest(), Description: desc}}, nil
}

// failed returns why a plugin could not be loaded before, so that a broken one does not cost its compilation each time
// that plugins are looked through.
func (r *registry) failed(ctx context.Context, c candidate) error {
	select {
	case r.lock <- struct{}{}:
		defer func() { <-r.lock }()
		return r.bad[c]
	case <-ctx.Done():
		return canceled(ctx)
	}
}

func (c candidate) String() string {
	if c.path != "" {
		return c.path
	}
	return c.name + " (built in, " + string(c.runtime) + ")"
}

func describe(ctx context.Context, run runner) (abi.Description, error) {
	var d abi.Description
	resp, err := run.run(ctx, abi.OpDescribe, nil, nothing())
	if err == nil {
		err = abi.Unmarshal(resp, &d)
	}
	return d, err
}

func checkDescription(d *abi.Description, c candidate) error {
	switch {
	case d.Major != abi.Major:
		return abi.Errorf(abi.ErrUnsupported, "plugin %s was made for version %d of the contract, this host has version %d", d.Name, d.Major, abi.Major)
	case !validName(d.Name):
		return abi.Errorf(abi.ErrPlugin, "plugin calls itself %q, want letters, digits and dashes", d.Name)
	case c.name != "" && d.Name != c.name:
		return abi.Errorf(abi.ErrPlugin, "plugin calls itself %q, want %q", d.Name, c.name)
	case !slices.Contains(d.Ops, abi.OpConvertLayer):
		return abi.Errorf(abi.ErrUnsupported, "plugin %s cannot convert layers", d.Name)
	case d.Input < abi.RoleLayerStored || d.Input > abi.RoleLayerEntries:
		return abi.Errorf(abi.ErrPlugin, "plugin %s wants its layers as role %d, which is none", d.Name, d.Input)
	}
	for _, f := range d.Needs {
		if !slices.Contains(abi.Features(), f) {
			return abi.Errorf(abi.ErrUnsupported, "plugin %s needs the feature %q, which this host does not have", d.Name, f)
		}
	}
	return nil
}

func validName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && s[0] != '-'
}

// find decides where to take format from.
func (r *registry) find(format string, rt Runtime) (candidate, error) {
	switch rt {
	case RuntimeDefault, RuntimeWasm, RuntimeNative, RuntimeInProcess:
	default:
		return candidate{}, abi.Errorf(abi.ErrInvalid, "runtime %q is none of wasm, native, inprocess", rt)
	}
	if strings.ContainsAny(format, `/\`) || strings.HasSuffix(format, ".wasm") {
		return r.findPath(format, rt)
	}
	if !validName(format) {
		return candidate{}, abi.Errorf(abi.ErrInvalid, "format %q is neither a name nor the path of a plugin", format)
	}
	all := r.candidates()
	for _, c := range all {
		if c.name == format && (rt == RuntimeDefault || rt == c.runtime) {
			return c, nil
		}
	}
	var names []string
	for _, c := range all {
		if c.name == format {
			return candidate{}, abi.Errorf(abi.ErrNotFound, "plugin %s is not there for the runtime %s (it is for %s)", format, rt, c.runtime)
		}
		if !slices.Contains(names, c.name) {
			names = append(names, c.name)
		}
	}
	return candidate{}, abi.Errorf(abi.ErrNotFound, "no plugin is named %q; there are: %s", format, strings.Join(names, ", "))
}

func (r *registry) findPath(path string, rt Runtime) (candidate, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return candidate{}, abi.Errorf(abi.ErrIO, "plugin %s: %w", path, err)
	}
	st, err := os.Stat(abs)
	if err != nil {
		return candidate{}, abi.Errorf(abi.ErrNotFound, "plugin %s: %w", path, err)
	}
	c := candidate{runtime: RuntimeWasm, path: abs}
	if !isModule(abs) && rt != RuntimeWasm && st.Mode().IsRegular() && executable(st) {
		c.runtime = RuntimeNative
	}
	if rt != RuntimeDefault && rt != c.runtime {
		return c, abi.Errorf(abi.ErrInvalid, "plugin %s runs as %s, not as %s", path, c.runtime, rt)
	}
	return c, nil
}

// isModule reports whether a file starts like a wasm module, plain or compressed.
func isModule(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var b [4]byte
	n, _ := f.Read(b[:])
	return n == 4 && (string(b[:]) == "\x00asm" || string(b[:]) == "\x28\xb5\x2f\xfd" || string(b[:2]) == "\x1f\x8b")
}

func executable(st os.FileInfo) bool { return runtime.GOOS == "windows" || st.Mode()&0o111 != 0 }

// candidates lists what the search path and the program offer, best first for each name.
func (r *registry) candidates() []candidate {
	var all []candidate
	for _, dir := range r.cfg.dirs {
		files, _ := os.ReadDir(dir) // a directory that is not there offers nothing
		var wasm, native []candidate
		for _, f := range files {
			name := f.Name()
			path := filepath.Join(dir, name)
			if f.IsDir() {
				continue
			}
			if n, ok := strings.CutSuffix(name, ".wasm"); ok && validName(n) {
				wasm = append(wasm, candidate{n, RuntimeWasm, path})
			} else if n, ok := strings.CutPrefix(strings.TrimSuffix(name, ".exe"), nativePrefix); ok && validName(n) {
				native = append(native, candidate{n, RuntimeNative, path})
			}
		}
		all = append(append(all, wasm...), native...)
	}
	for _, b := range r.cfg.builtins {
		if b.Wasm != nil {
			all = append(all, candidate{b.Name, RuntimeWasm, ""})
		}
		if b.Native != nil {
			all = append(all, candidate{b.Name, RuntimeNative, ""})
		}
		if b.InProcess != nil {
			all = append(all, candidate{b.Name, RuntimeInProcess, ""})
		}
	}
	return all
}

func (r *registry) list(ctx context.Context) []PluginInfo {
	return r.some(ctx, func(candidate) bool { return true })
}

// far tells whether a plugin neither comes with the program nor is loaded: asking it means to run a stranger's code.
func (r *registry) far(ctx context.Context, c candidate) bool {
	if c.path == "" {
		return false
	}
	select {
	case r.lock <- struct{}{}:
		defer func() { <-r.lock }()
		return r.got[c] == nil
	case <-ctx.Done():
		return true
	}
}

// some loads and lists those plugins that pick wants, by name, of several with one name the one that would be used.
func (r *registry) some(ctx context.Context, pick func(candidate) bool) []PluginInfo {
	var out []PluginInfo
	seen := map[string]bool{}
	for _, c := range r.candidates() {
		if seen[c.name] {
			continue
		}
		seen[c.name] = true
		if !pick(c) {
			continue
		}
		p, err := (*plugin)(nil), r.failed(ctx, c)
		if err == nil {
			p, err = r.load(ctx, c)
		}
		if err != nil {
			out = append(out, PluginInfo{Name: c.name, Runtime: c.runtime, Path: c.path, Err: err})
			continue
		}
		out = append(out, p.info)
	}
	slices.SortFunc(out, func(a, b PluginInfo) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// builtin returns the program's own plugin of that name.
func (c *config) builtin(name string) *Builtin {
	for i := range c.builtins {
		if c.builtins[i].Name == name {
			return &c.builtins[i]
		}
	}
	return nil
}
