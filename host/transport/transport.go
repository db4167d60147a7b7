package transport

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

// Source is an opened image. All methods may be called from several goroutines, and again after an error; after Close
// they fail. Descriptors other than the root come from documents that the caller read.
type Source interface {
	// Resolve returns the descriptor of the image's root document: media type, digest and size, nothing else is set.
	// abi.ErrNotFound when there is no such image; abi.ErrInvalid when the reference fits several.
	Resolve(ctx context.Context) (ocispec.Descriptor, error)

	// Fetch streams a blob or document. The stream gives at most desc.Size bytes and fails with abi.ErrDigest instead
	// of io.EOF when they are not what desc says. The caller closes it; ctx must stay alive until then. Interrupted
	// network streams continue by themselves.
	Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)

	// ReaderAt gives random access to a blob that is at rest on this machine, abi.ErrUnsupported where it is not
	// (then Fetch it). The bytes are not verified. The caller closes it, before the Source.
	ReaderAt(ctx context.Context, desc ocispec.Descriptor) (cas.ReaderAt, error)

	// Ranges gives random access to a blob wherever it is: at rest as ReaderAt, else by asking for the ranges that are read,
	// with a cache. abi.ErrUnsupported where that cannot be (then Fetch it). The bytes are not verified: that
	// takes all of them. It may be used from several goroutines; a read that failed may be repeated. ctx must stay alive until the
	// caller closes it, before the Source.
	Ranges(ctx context.Context, desc ocispec.Descriptor) (cas.ReaderAt, error)

	// Location returns a URL at which other programs find a blob, "" if it has none of its own.
	Location(desc ocispec.Descriptor) string

	// Tags lists the names that a reference to this place may have, sorted; for messages and completion.
	Tags(ctx context.Context) ([]string, error)

	// Close frees everything. It may be called again.
	Close() error
}

// Target is a place that an image goes to. All methods may be called from several goroutines.
type Target interface {
	// Has tells whether a blob need not be pushed: it is there, complete and right, or was pushed before.
	Has(ctx context.Context, desc ocispec.Descriptor) (bool, error)

	// Push stores one blob or document. Blobs go before the manifests that refer to them, manifests before indexes,
	// the root last (registries insist). open is called at least once, and again for every retry; each call gives the
	// whole content, which is verified. A Target may take over the file of a stream that has one (BlobReader), by a
	// link. Pushing what is there already succeeds. After an error nothing of the blob is visible and Push may be
	// repeated.
	Push(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error

	// Publish makes root visible under the reference's name, in one step and durably, replacing what had the name.
	// It is called once, after everything reachable was pushed; after an error it may be repeated.
	Publish(ctx context.Context, root ocispec.Descriptor) error

	// Close ends the use. Without a successful Publish it takes back what was written, as far as the place allows
	// (a registry keeps unreferenced blobs until its garbage collection). It may be called again.
	Close() error
}

// Options say how places are opened. The zero value is right for everything but private registries with odd setups.
type Options struct {
	// TempDir is where compressed archives are unpacked for random access; "" for the system's.
	TempDir string
	// Logger gets retries and fallbacks; nil for none.
	Logger *slog.Logger

	// PlainHTTP allows registries without TLS. Loopback addresses may do without anyway.
	PlainHTTP bool
	// InsecureTLS accepts any certificate.
	InsecureTLS bool
	// CAFiles have root certificates (PEM) beside the system's; CertFile and KeyFile a client certificate.
	CAFiles           []string
	CertFile, KeyFile string
	// CertDirs are directories like docker's certs.d, or like certs.d/HOST: in the directory and in its subdirectory named
	// like the reference's host, *.crt are root certificates and NAME.cert with NAME.key a client certificate.
	CertDirs []string
	// AuthFile is a docker config file; "" for docker's own ($DOCKER_CONFIG, ~/.docker). Credential helpers work.
	AuthFile string
	// Username and Password, when set, are used instead, for the reference's host only; if CredentialsHost is set, only
	// for references to that host ("registry.example:5000"). Without a Username, Password is a refresh token.
	Username, Password string
	CredentialsHost    string
	// MountFrom names repositories of the target's registry in which blobs may be found that need not be uploaded.
	MountFrom []string
	// Retries is how often a failing request or blob is tried again; 0 for 5, negative for never.
	Retries int
	// Stall is how long a transfer may go without a byte before it is broken off and tried again; 0 for one minute.
	Stall time.Duration
	// UserAgent is what registries see; "" for "convhost".
	UserAgent string
	// HTTP carries out requests; nil for a transport with the options above. Retries are put around it.
	HTTP http.RoundTripper
}

func (o Options) log() *slog.Logger {
	if o.Logger != nil {
		return o.Logger
	}
	return slog.New(slog.DiscardHandler)
}

// OpenSource opens the place that ref names for reading. It reads indexes, but no blobs, with two exceptions: an
// archive of docker save tells no digests, so the chosen image's layers are read once, and a compressed archive is
// unpacked into opts.TempDir. ctx is needed only until it returns.
func OpenSource(ctx context.Context, ref Reference, opts Options) (Source, error) {
	switch ref.Transport {
	case OCI:
		return openLayoutSource(ref)
	case OCIArchive:
		return openArchiveSource(ctx, ref, opts)
	case DockerArchive:
		return openDockerSource(ctx, ref, opts)
	case Docker:
		return openRegistrySource(ctx, ref, opts)
	}
	return nil, abi.Errorf(abi.ErrInvalid, "reference has no known transport: %q", ref.Transport)
}

// OpenTarget opens the place that ref names for writing. Nothing visible happens before Publish, except that the
// directory of a new OCI layout is created.
func OpenTarget(ctx context.Context, ref Reference, opts Options) (Target, error) {
	if ref.Index >= 0 || ref.Digest != "" && ref.Transport != Docker {
		return nil, abi.Errorf(abi.ErrInvalid, "%s: a target is named by a tag, not by an index or digest", ref)
	}
	switch ref.Transport {
	case OCI:
		return openLayoutTarget(ctx, ref)
	case OCIArchive:
		return openArchiveTarget(ref)
	case DockerArchive:
		return openDockerTarget(ref)
	case Docker:
		return openRegistryTarget(ctx, ref, opts)
	}
	return nil, abi.Errorf(abi.ErrInvalid, "reference has no known transport: %q", ref.Transport)
}
