package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "creds")
	if err := os.WriteFile(file, []byte("bob:from:file\r\nnot this\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const one, two = "convert docker://a.example/x oci:out -f nydus", "convert docker://a.example/x docker://b.example:5000/y -f nydus"
	for _, tt := range []struct {
		name, env, args, stdin     string
		code                       int
		user, password, host, says string
	}{
		{"flag", "", one + " --creds bob:se:cret", "", 0, "bob", "se:cret", "", ""},
		{"environment", "CONVHOST_CREDS=bob:secret", one, "", 0, "bob", "secret", "", ""},
		{"file", "", one + " --creds-file " + file, "", 0, "bob", "from:file", "", ""},
		{"standard input", "", one + " --creds-file -", "bob:piped\n", 0, "bob", "piped", "", ""},
		{"one registry twice", "", "verify docker://a.example/x docker://a.example/y --creds bob:secret", "", 0, "bob", "secret", "", ""},
		{"for one of two", "", two + " --creds bob:secret --creds-host b.example:5000", "", 0, "bob", "secret", "b.example:5000", ""},
		{"for which of two", "", two + " --creds bob:secret", "", 2, "", "", "", "for which of a.example, b.example:5000"},
		{"for none of two", "", two + " --creds bob:secret --creds-host c.example", "", 2, "", "", "", "does not talk to it"},
		{"no colon", "", one + " --creds secret", "", 2, "", "", "", "want USER:PASSWORD"},
		{"no user", "CONVHOST_CREDS=:secret", one, "", 2, "", "", "", "want USER:PASSWORD"},
		{"no password", "", one + " --creds bob:", "", 2, "", "", "", "want USER:PASSWORD"},
		{"empty", "", one + " --creds=", "", 2, "", "", "", "is empty"},
		{"empty input", "", one + " --creds-file -", "", 2, "", "", "", "want USER:PASSWORD"},
		{"both", "CONVHOST_CREDS=bob:secret", one + " --creds-file " + file, "", 2, "", "", "", "exclude each other"},
		{"no file", "", one + " --creds-file " + file + "-not", "", 8, "", "", "", "no such file"},
		{"host of nothing", "", one + " --creds-host a.example", "", 2, "", "", "", "there is neither"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("XDG_CONFIG_HOME", t.TempDir())
			t.Setenv("HOME", t.TempDir())
			var r recorder
			var out, errs bytes.Buffer
			env := slices.DeleteFunc([]string{tt.env}, func(s string) bool { return s == "" })
			args := append([]string{"convhost", "--cache-dir", ""}, strings.Fields(tt.args)...)
			code := runWith(t.Context(), r.open, args, strings.NewReader(tt.stdin), &out, &errs, env)
			if code != tt.code || !strings.Contains(errs.String(), tt.says) {
				t.Fatalf("exit code %d, want %d: %s", code, tt.code, errs.String())
			}
			if strings.Contains(errs.String()+out.String(), "secret") {
				t.Errorf("the secret is told: %s", errs.String())
			}
			o := r.set
			if o.user != tt.user || o.password != tt.password || tt.code == 0 && o.credsHost != tt.host {
				t.Errorf("user %q, password %q, host %q", o.user, o.password, o.credsHost)
			}
			if got := o.transportOptions(nil); got.Username != tt.user || got.Password != tt.password || tt.code == 0 && got.CredentialsHost != tt.host {
				t.Errorf("options %+v", got)
			}
		})
	}
}

func TestCertificateFlags(t *testing.T) {
	var r recorder
	a, b := t.TempDir(), t.TempDir()
	code, _, stderr := r.try(t, nil, "inspect", "oci:x", "--ca-file", a+"/1", "--ca-file", a+"/2", "--cert-dir", a, "--cert-dir", b, "--tls-verify=false")
	if code != 0 {
		t.Fatal(stderr)
	}
	o := r.set.transportOptions(nil)
	if !slices.Equal(o.CAFiles, []string{a + "/1", a + "/2"}) || !slices.Equal(o.CertDirs, []string{a, b}) || !o.InsecureTLS {
		t.Errorf("%+v", o)
	}
}
