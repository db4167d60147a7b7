package transport_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/transport"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t}
	der, key := a.sign(&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign})
	a.key, a.pem = key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) sign(c *x509.Certificate) (der []byte, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	if der, err = x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer); err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

// leaf returns a certificate for a server on this machine, or for a client, with its key, in PEM.
func (a *authority) leaf(server bool) (cert, key []byte) {
	c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if server {
		c.ExtKeyUsage, c.IPAddresses = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, k := a.sign(c)
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// directory writes a directory.
func directory(t *testing.T, content map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range content {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestRegistryCertificates: a registry with its own authority that wants clients with certificates of another one.
func TestRegistryCertificates(t *testing.T) {
	reg := startRegistry(t)
	ours, theirs, nobody := newAuthority(t, "servers"), newAuthority(t, "clients"), newAuthority(t, "nobody")
	pair, err := tls.X509KeyPair(ours.leaf(true))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(reg.Config.Handler)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}
	srv.TLS.ClientCAs.AddCert(theirs.cert)
	srv.StartTLS()
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "https://")
	cert, key := theirs.leaf(false)
	flat := directory(t, map[string][]byte{"ca.crt": ours.pem, "me.cert": cert, "me.key": key, "README": []byte("hello")})
	byHost := directory(t, map[string][]byte{host + "/ca.crt": ours.pem, host + "/me.cert": cert, host + "/me.key": key, "other:443/ca.crt": []byte("broken")})
	roots := directory(t, map[string][]byte{"a.crt": nobody.pem, "b.crt": bytes.Join([][]byte{nobody.pem, ours.pem}, nil)})
	s := newSingle(1000)
	for name, o := range map[string]transport.Options{
		"directory":         {CertDirs: []string{flat}},
		"directory of host": {CertDirs: []string{byHost}},
		"two directories":   {CertDirs: []string{roots, directory(t, map[string][]byte{"me.cert": cert, "me.key": key})}},
		"files":             {CAFiles: []string{filepath.Join(roots, "a.crt"), filepath.Join(flat, "ca.crt")}, CertFile: filepath.Join(flat, "me.cert"), KeyFile: filepath.Join(flat, "me.key")},
		"any server":        {InsecureTLS: true, CertDirs: []string{flat}},
	} {
		t.Run(name, func(t *testing.T) {
			ref := "docker://" + host + "/" + strings.ReplaceAll(name, " ", "-") + ":v1"
			s.write(t, ref, o)
			s.check(t, ref, o)
		})
	}
	for name, o := range map[string]transport.Options{
		"server of nobody": {CertDirs: []string{directory(t, map[string][]byte{"ca.crt": nobody.pem, "me.cert": cert, "me.key": key})}},
		"no client":        {CAFiles: []string{filepath.Join(flat, "ca.crt")}},
	} {
		o.Retries = -1
		src := openSource(t, "docker://"+host+"/a:v1", o)
		_, err := src.Resolve(t.Context())
		wantClass(t, name, err, abi.ErrIO)
		src.Close()
	}
}

func TestCertificatesRefused(t *testing.T) {
	a := newAuthority(t, "a")
	cert, key := a.leaf(false)
	_, other := a.leaf(false)
	for name, c := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"certificate without key": {map[string][]byte{"me.cert": cert}, "has no key me.key beside it"},
		"key without certificate": {map[string][]byte{"me.key": key}, "has no client certificate me.cert beside it"},
		"key of another":          {map[string][]byte{"me.cert": cert, "me.key": other}, "does not match"},
		"no certificate":          {map[string][]byte{"ca.crt": []byte("hello")}, "holds no certificate"},
	} {
		_, err := transport.OpenSource(t.Context(), parse(t, "docker://r.example/a:v1"), transport.Options{CertDirs: []string{directory(t, c.files)}})
		wantClass(t, name, err, abi.ErrInvalid)
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := transport.OpenSource(t.Context(), parse(t, "docker://r.example/a:v1"), transport.Options{CertDirs: []string{filepath.Join(t.TempDir(), "absent")}})
	wantClass(t, "absent", err, abi.ErrNotFound)
}
