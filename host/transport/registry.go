package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/convhost/convhost/abi"
)

// answerTimeout is how long a server may think: registries digest a whole upload before they answer.
const answerTimeout = 5 * time.Minute

// registry is what pulling and pushing share: one host, its scheme, a client with retries, and credentials.
type registry struct {
	ref        Reference
	opts       Options
	host       string // as requests name it
	plain      bool   // plain HTTP
	client     *http.Client
	credential auth.CredentialFunc
}

func newRegistry(ctx context.Context, ref Reference, opts Options) (*registry, error) {
	r := &registry{ref: ref, opts: opts, plain: opts.PlainHTTP}
	host, err := docker.DefaultHost(ref.Host)
	if err != nil {
		return nil, abi.Errorf(abi.ErrInvalid, "%s: %w", ref, err)
	}
	r.host = host
	next := opts.HTTP
	if next == nil {
		if next, err = httpTransport(opts, ref.Host); err != nil {
			return nil, wrap(err, ref.String())
		}
	}
	if !r.plain && ref.loopback() {
		r.plain = speaksPlainHTTP(ctx, next, host)
	}
	r.client = &http.Client{Transport: newRetrier(next, opts, r.plain)}
	if r.credential, err = credentialsOf(ref, opts, host); err != nil {
		return nil, wrap(err, ref.String())
	}
	return r, nil
}

func (o Options) userAgent() string {
	if o.UserAgent != "" {
		return o.UserAgent
	}
	return "convhost"
}

func httpTransport(opts Options, host string) (http.RoundTripper, error) {
	certs, err := certificatesFor(opts, host)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{InsecureSkipVerify: opts.InsecureTLS, RootCAs: certs.roots, Certificates: certs.pairs}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: answerTimeout,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   8,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // blobs are compressed, and their bytes are what counts
	}, nil
}

// speaksPlainHTTP asks a server on this machine whether it speaks TLS.
func speaksPlainHTTP(ctx context.Context, rt http.RoundTripper, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/v2/", nil)
	if err != nil {
		return false
	}
	resp, err := rt.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	var header tls.RecordHeaderError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &header)
}

// credentialsOf gives credentials for the reference's host and to no other.
func credentialsOf(ref Reference, opts Options, host string) (auth.CredentialFunc, error) {
	none := func(context.Context, string) (auth.Credential, error) { return auth.EmptyCredential, nil }
	if (opts.Username != "" || opts.Password != "") && (opts.CredentialsHost == "" || opts.CredentialsHost == ref.Host) {
		return func(_ context.Context, h string) (auth.Credential, error) {
			if h != host && h != ref.Host {
				return auth.EmptyCredential, nil
			}
			if opts.Username == "" {
				return auth.Credential{RefreshToken: opts.Password}, nil
			}
			return auth.Credential{Username: opts.Username, Password: opts.Password}, nil
		}, nil
	}
	var store credentials.Store
	var err error
	if opts.AuthFile != "" {
		if _, err := os.Stat(opts.AuthFile); err != nil {
			return nil, err
		}
		store, err = credentials.NewStore(opts.AuthFile, credentials.StoreOptions{})
	} else {
		store, err = credentials.NewStoreFromDocker(credentials.StoreOptions{})
	}
	switch {
	case err != nil && opts.AuthFile != "":
		return nil, abi.Errorf(abi.ErrInvalid, "credentials: %w", err)
	case err != nil:
		opts.log().Warn("no credentials: docker's configuration cannot be read", "error", err)
		return none, nil
	}
	get := credentials.Credential(store)
	return func(ctx context.Context, h string) (auth.Credential, error) {
		if h != host && h != ref.Host {
			return auth.EmptyCredential, nil
		}
		return get(ctx, h)
	}, nil
}

// fail gives a registry's error its class.
func (r *registry) fail(err error, doing string) error {
	if err == nil {
		return nil
	}
	var c abi.Class
	switch {
	case errors.As(err, &c):
	case statusOf(err) == http.StatusUnauthorized, statusOf(err) == http.StatusForbidden, denied(err):
		c = abi.ErrDenied
	case statusOf(err) == http.StatusNotFound, errors.Is(err, errdef.ErrNotFound):
		c = abi.ErrNotFound
	case statusOf(err) == http.StatusRequestEntityTooLarge, errors.Is(err, errdef.ErrSizeExceedsLimit):
		c = abi.ErrLimit
	default:
		c = classOf(err)
	}
	return abi.Errorf(c, "%s: %s: %w", r.ref, doing, err)
}

// denied tells the libraries' own errors about credentials.
func denied(err error) bool {
	return errors.Is(err, docker.ErrInvalidAuthorization) || errors.Is(err, auth.ErrBasicCredentialNotFound)
}

// statusOf returns the HTTP status that an error of one of the libraries carries, 0 if none.
func statusOf(err error) int {
	var o *errcode.ErrorResponse
	if errors.As(err, &o) {
		return o.StatusCode
	}
	var c remoteserrors.ErrUnexpectedStatus
	if errors.As(err, &c) {
		return c.StatusCode
	}
	return 0
}
