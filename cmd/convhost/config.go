package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/convhost/convhost/abi"
)

const configHelp = `Settings are taken from, each winning over those before it:

  1. a configuration file: --config FILE, else CONVHOST_CONFIG, else convhost/config.yaml in the user's
     configuration directory ($XDG_CONFIG_HOME or ~/.config; Library/Application Support on macOS; %AppData% on
     Windows), which need not exist. Its ending says how it is written: .yaml, .toml or .json.
  2. the environment: CONVHOST_ and the setting's name in capitals, with underscores: CONVHOST_JOBS.
  3. flags.

A setting has the name of its flag, without dashes in front. Settings are all flags of "convhost help options" but
--config, and of convert also --platform, --attestations, --media-types, --referrer and --verify. Lists are lists in the
file; in the environment, directories are separated as in PATH and platforms by commas. A name that is none is an error.

  # ~/.config/convhost/config.yaml
  plugin-dir: [/usr/local/lib/convhost/plugins]
  jobs: 4
  limit-memory: 1GiB
  platform: [linux/amd64, linux/arm64]
`

const envPrefix = "CONVHOST_"

// extraSettings are flags of single commands that are settings too.
var extraSettings = []string{"platform", "attestations", "media-types", "referrer", "verify"}

// configure applies file and environment to the flags that were not given. The flags' own parsers judge the values.
func (a *app) configure(cmd *cobra.Command) error {
	names := append(slices.Clone(extraSettings), settingNames(cmd.Root().PersistentFlags())...)
	v := viper.New()
	file, err := a.readConfig(v)
	if err != nil {
		return err
	}
	for _, key := range v.AllKeys() {
		name, _, _ := strings.Cut(key, ".")
		if !slices.Contains(names, name) {
			return withHint(abi.Errorf(abi.ErrInvalid, "%s: there is no setting %q", file, name), "convhost help config tells about settings")
		}
	}
	for _, name := range names {
		key := envPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		from := file + ": " + name
		if s, ok := a.env[key]; ok && (s != "" || name == "cache-dir") { // an empty cache-dir means something
			v.Set(name, s)
			from = "environment: " + key
		}
		f := cmd.Flags().Lookup(name)
		if f == nil || f.Changed || !v.IsSet(name) || name == "platform" && given(cmd.Flags(), "all-platforms") {
			continue
		}
		for _, s := range values(v, name) {
			if err := cmd.Flags().Set(name, s); err != nil {
				return withHint(abi.Errorf(abi.ErrInvalid, "%s: %q: %w", from, s, cause(err)), "convhost help config tells about settings")
			}
		}
		f.Changed = true
	}
	return nil
}

// values returns a setting as text for its flag, the items of a list one by one.
func values(v *viper.Viper, name string) []string {
	if list, ok := v.Get(name).([]any); ok && len(list) >= 0 {
		return v.GetStringSlice(name)
	}
	return []string{v.GetString(name)}
}

// cause takes off what pflag writes in front of a value's own error: it speaks of flags.
func cause(err error) error {
	if e := (*pflag.InvalidValueError)(nil); errors.As(err, &e) && e.Unwrap() != nil {
		return e.Unwrap()
	}
	return err
}

// readConfig reads the file, if there is one, and returns its name.
func (a *app) readConfig(v *viper.Viper) (string, error) {
	file, asked := a.set.config, true
	if file == "" {
		file = a.env[envPrefix+"CONFIG"]
	}
	if file == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return "", nil // no home, no file
		}
		file, asked = filepath.Join(dir, "convhost", "config.yaml"), false
	}
	v.SetConfigFile(file)
	err := v.ReadInConfig()
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist) && !asked:
		return file, nil
	case errors.As(err, new(*fs.PathError)):
		return file, fileError(err, "configuration")
	}
	return file, abi.Errorf(abi.ErrInvalid, "configuration %s: %w", file, err)
}

func settingNames(f *pflag.FlagSet) []string {
	var names []string
	f.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" {
			names = append(names, f.Name)
		}
	})
	return names
}
