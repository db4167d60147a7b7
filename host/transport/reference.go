package transport

import (
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
)

// Names of the transports, as they stand before the first colon of a reference.
const (
	OCI           = "oci"
	OCIArchive    = "oci-archive"
	DockerArchive = "docker-archive"
	Docker        = "docker"
)

const forms = "oci:PATH[:TAG], oci-archive:PATH[:TAG], docker-archive:PATH[:NAME:TAG] or docker://HOST/REPOSITORY[:TAG|@DIGEST]"

// Reference names an image at a place. Make it with ParseReference: fields that do not apply are empty, Index is -1.
type Reference struct {
	Transport string        // OCI, OCIArchive, DockerArchive or Docker
	Path      string        // of a directory or file; not for Docker
	Host      string        // registry with port; Docker only
	Repo      string        // repository within the registry; Docker only
	Tag       string        // tag; for DockerArchive a normalized repository tag ("docker.io/library/busybox:latest")
	Digest    digest.Digest // of the root document
	Index     int           // which entry of the place, from 0; -1 if not given
}

var (
	tagSyntax    = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9._:@+/-]{0,254}[A-Za-z0-9._-])?$`)
	digestSuffix = regexp.MustCompile(`^(.*)@((?:sha256:[0-9a-f]{64})|(?:sha512:[0-9a-f]{128}))$`)
	driveLetter  = regexp.MustCompile(`^[A-Za-z]:[\\/]`)
)

// ParseReference takes a reference apart. Its errors are abi.ErrInvalid and tell which forms there are.
func ParseReference(s string) (Reference, error) {
	name, rest, ok := strings.Cut(s, ":")
	if !ok {
		return Reference{}, invalid(s, "it has no transport")
	}
	ref := Reference{Transport: name, Index: -1}
	var err error
	switch name {
	case OCI, OCIArchive, DockerArchive:
		err = ref.parsePath(s, rest)
	case Docker:
		err = ref.parseRegistry(s, rest)
	default:
		err = invalid(s, "there is no transport "+strconv.Quote(name))
	}
	if err != nil {
		return Reference{}, err
	}
	return ref, nil
}

func invalid(s, why string) error {
	return abi.Errorf(abi.ErrInvalid, "reference %q: %s; references are %s", s, why, forms)
}

// parsePath takes PATH[:TAG][@DIGEST] apart. The path ends at the first colon, not counting that of a drive letter.
func (r *Reference) parsePath(s, rest string) error {
	if strings.ContainsRune(rest, 0) {
		return invalid(s, "it contains a zero byte")
	}
	if m := digestSuffix.FindStringSubmatch(rest); m != nil {
		rest, r.Digest = m[1], digest.Digest(m[2])
	}
	drive := ""
	if driveLetter.MatchString(rest) {
		drive, rest = rest[:2], rest[2:]
	}
	path, tag, tagged := strings.Cut(rest, ":")
	r.Path = drive + path
	switch {
	case path == "":
		return invalid(s, "the path is empty")
	case !tagged:
		return nil
	case strings.HasPrefix(tag, "@"):
		n, err := strconv.ParseUint(tag[1:], 10, 31)
		if err != nil || r.Digest != "" || tag[1:] != strconv.FormatUint(n, 10) {
			return invalid(s, "after :@ comes the number of an entry, from 0")
		}
		r.Index = int(n)
		return nil
	case r.Transport == DockerArchive:
		named, err := reference.ParseNormalizedNamed(tag)
		if err != nil || r.Digest != "" {
			return invalid(s, strconv.Quote(tag)+" is not a repository with a tag")
		}
		if _, ok := named.(reference.Digested); ok {
			return invalid(s, "an archive of docker save has tags, no digests")
		}
		r.Tag = reference.TagNameOnly(named).String()
		return nil
	case !tagSyntax.MatchString(tag):
		return invalid(s, strconv.Quote(tag)+" is not a tag")
	}
	r.Tag = tag
	return nil
}

func (r *Reference) parseRegistry(s, rest string) error {
	rest, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return invalid(s, "after docker: comes //")
	}
	named, err := reference.ParseNormalizedNamed(rest)
	if err != nil {
		return invalid(s, err.Error())
	}
	r.Host, r.Repo = reference.Domain(named), reference.Path(named)
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		if err := d.Digest().Validate(); err != nil {
			return invalid(s, err.Error())
		}
		r.Digest = d.Digest()
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return nil
}

// String returns the reference in the syntax that ParseReference reads.
func (r Reference) String() string {
	s := r.Transport + ":"
	if r.Transport == Docker {
		s += "//" + r.Host + "/" + r.Repo
	} else {
		s += r.Path
	}
	switch {
	case r.Index >= 0:
		s += ":@" + strconv.Itoa(r.Index)
	case r.Tag != "":
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// loopback tells whether the registry is on this machine, by name: localhost, 127.0.0.0/8 or ::1.
func (r Reference) loopback() bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
