package transport_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/transport"
)

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseReference(t *testing.T) {
	type R = transport.Reference
	for in, want := range map[string]R{
		"oci:dir":                           {Transport: "oci", Path: "dir", Index: -1},
		"oci:/a/b:v1":                       {Transport: "oci", Path: "/a/b", Tag: "v1", Index: -1},
		"oci:../a:docker.io/library/x:1":    {Transport: "oci", Path: "../a", Tag: "docker.io/library/x:1", Index: -1},
		`oci:C:\img\x:v1`:                   {Transport: "oci", Path: `C:\img\x`, Tag: "v1", Index: -1},
		`oci:c:/img`:                        {Transport: "oci", Path: `c:/img`, Index: -1},
		"oci:dir:@2":                        {Transport: "oci", Path: "dir", Index: 2},
		"oci:dir@sha256:" + hex64:           {Transport: "oci", Path: "dir", Digest: "sha256:" + hex64, Index: -1},
		"oci:dir:v1@sha256:" + hex64:        {Transport: "oci", Path: "dir", Tag: "v1", Digest: "sha256:" + hex64, Index: -1},
		"oci:user@host/dir":                 {Transport: "oci", Path: "user@host/dir", Index: -1},
		"oci-archive:x.tar:v1":              {Transport: "oci-archive", Path: "x.tar", Tag: "v1", Index: -1},
		"docker-archive:x.tar":              {Transport: "docker-archive", Path: "x.tar", Index: -1},
		"docker-archive:x.tar:busybox":      {Transport: "docker-archive", Path: "x.tar", Tag: "docker.io/library/busybox:latest", Index: -1},
		"docker-archive:x.tar:h:5000/a/b:1": {Transport: "docker-archive", Path: "x.tar", Tag: "h:5000/a/b:1", Index: -1},
		"docker-archive:x.tar:@0":           {Transport: "docker-archive", Path: "x.tar", Index: 0},
		"docker://busybox":                  {Transport: "docker", Host: "docker.io", Repo: "library/busybox", Tag: "latest", Index: -1},
		"docker://127.0.0.1:5000/a/b:1":     {Transport: "docker", Host: "127.0.0.1:5000", Repo: "a/b", Tag: "1", Index: -1},
		"docker://[::1]:5000/a:1":           {Transport: "docker", Host: "[::1]:5000", Repo: "a", Tag: "1", Index: -1},
		"docker://h.io/a@sha256:" + hex64:   {Transport: "docker", Host: "h.io", Repo: "a", Digest: "sha256:" + hex64, Index: -1},
		"docker://h.io/a:t@sha256:" + hex64: {Transport: "docker", Host: "h.io", Repo: "a", Tag: "t", Digest: "sha256:" + hex64, Index: -1},
		"docker://localhost/a/b":            {Transport: "docker", Host: "localhost", Repo: "a/b", Tag: "latest", Index: -1},
	} {
		got, err := transport.ParseReference(in)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v\nwant %+v", in, got, err, want)
			continue
		}
		again, err := transport.ParseReference(got.String())
		if err != nil || again != got {
			t.Errorf("%s → %s → %+v, %v", in, got, again, err)
		}
	}
}

func TestParseReferenceRefuses(t *testing.T) {
	for _, in := range []string{"", "x", "oci", "oci:", "oci::tag", "oci:d:", "oci:d:-x", "oci:d:a b", "oci:d:@", "oci:d:@-1", "oci:d:@01",
		"oci:d:@99999999999", "oci:d:@1@sha256:" + hex64, "oci:d\x00", "dir:x", "docker:x", "docker://", "docker://UPPER/Case", "docker://h.io/a@sha256:12",
		"docker://h.io/a@md5:d41d8cd98f00b204e9800998ecf8427e", "docker-archive:x:UPPER:1", "docker-archive:x:b@sha256:" + hex64, "/plain/path", `C:\x`} {
		_, err := transport.ParseReference(in)
		if !errors.Is(err, abi.ErrInvalid) || !strings.Contains(err.Error(), "docker-archive:PATH") {
			t.Errorf("%q: %v, want ErrInvalid that tells the forms", in, err)
		}
	}
}

// FuzzParseReference: what parses prints to something that parses to the same.
func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"oci:a:b", "oci:a@sha256:" + hex64, "docker://a/b:c", "docker-archive:x:@3", `oci:c:\x:t`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := transport.ParseReference(s)
		if err != nil {
			if abi.ClassOf(err) != abi.ErrInvalid {
				t.Fatal(err)
			}
			return
		}
		again, err := transport.ParseReference(ref.String())
		if err != nil || again != ref {
			t.Fatalf("%q → %q → %+v, %v, want %+v", s, ref, again, err, ref)
		}
	})
}
