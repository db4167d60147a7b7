package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/convhost/convhost/abi"
)

// certificates are what a client needs besides the system's roots.
type certificates struct {
	roots *x509.CertPool // nil: the system's
	pairs []tls.Certificate
}

// certificatesFor collects the certificates of the options for one host, named as in references.
func certificatesFor(opts Options, host string) (*certificates, error) {
	c := &certificates{}
	for _, file := range opts.CAFiles {
		if err := c.root(file); err != nil {
			return nil, err
		}
	}
	if opts.CertFile != "" || opts.KeyFile != "" {
		if err := c.pair(opts.CertFile, opts.KeyFile); err != nil {
			return nil, err
		}
	}
	for _, dir := range opts.CertDirs {
		if err := c.dir(dir); err != nil {
			return nil, err
		}
		sub := filepath.Join(dir, host)
		if strings.ContainsAny(host, `/\`) || host == ".." {
			continue
		}
		if st, err := os.Stat(sub); err == nil && st.IsDir() {
			if err := c.dir(sub); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// root trusts the certificates of a PEM file, beside the system's.
func (c *certificates) root(file string) error {
	pem, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if c.roots == nil {
		if c.roots, err = x509.SystemCertPool(); err != nil {
			c.roots = x509.NewCertPool()
		}
	}
	if !c.roots.AppendCertsFromPEM(pem) {
		return abi.Errorf(abi.ErrInvalid, "%s holds no certificate", file)
	}
	return nil
}

// pair adds a client certificate.
func (c *certificates) pair(cert, key string) error {
	p, err := tls.LoadX509KeyPair(cert, key)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err != nil {
		return abi.Errorf(abi.ErrInvalid, "client certificate %q with key %q: %w", cert, key, err)
	}
	c.pairs = append(c.pairs, p)
	return nil
}

// dir reads a directory as docker's certs.d/HOST: *.crt are roots, NAME.cert with NAME.key a client certificate.
func (c *certificates) dir(dir string) error {
	files, err := os.ReadDir(dir) // in order of names
	if err != nil {
		return err
	}
	has := map[string]bool{}
	for _, f := range files {
		has[f.Name()] = !f.IsDir()
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		stem := strings.TrimSuffix(f.Name(), filepath.Ext(f.Name()))
		switch ext := filepath.Ext(f.Name()); {
		case f.IsDir():
		case ext == ".crt":
			err = c.root(path)
		case ext == ".cert" && has[stem+".key"]:
			err = c.pair(path, filepath.Join(dir, stem+".key"))
		case ext == ".cert":
			err = abi.Errorf(abi.ErrInvalid, "client certificate %s has no key %s.key beside it (roots end in .crt)", path, stem)
		case ext == ".key" && !has[stem+".cert"]:
			err = abi.Errorf(abi.ErrInvalid, "key %s has no client certificate %s.cert beside it", path, stem)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
