package main

import (
	"bufio"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/transport"
)

// maxCreds bounds a line of credentials. Tokens are long, but not that long.
const maxCreds = 64 << 10

// prepareCreds finds the credentials of this command. Their text never appears in a message.
func (s *settings) prepareCreds(a *app) error {
	text, from := s.creds, "--creds"
	switch {
	case s.creds != "" && s.credsFile != "":
		return abi.Errorf(abi.ErrInvalid, "--creds and --creds-file exclude each other")
	case s.creds == "" && s.credsFile == "" && (given(s.flags, "creds") || given(s.flags, "creds-file")):
		return abi.Errorf(abi.ErrInvalid, "--creds or --creds-file is empty")
	case s.credsFile != "":
		var err error
		if text, err = readCreds(s.credsFile, a.stdin); err != nil {
			return err
		}
		from = "--creds-file"
	case s.creds == "" && s.credsHost != "":
		return abi.Errorf(abi.ErrInvalid, "--creds-host says for whom --creds or --creds-file is, and there is neither")
	case s.creds == "":
		return nil
	}
	user, password, ok := strings.Cut(text, ":")
	if !ok || user == "" || password == "" {
		return abi.Errorf(abi.ErrInvalid, "%s: want USER:PASSWORD", from)
	}
	s.user, s.password = user, password
	hosts := registries(a.refs)
	switch {
	case s.credsHost == "" && len(hosts) > 1:
		return withHint(abi.Errorf(abi.ErrInvalid, "%s: for which of %s are these credentials?", from, strings.Join(hosts, ", ")),
			"--creds-host says it; docker login or --authfile have credentials for several")
	case s.credsHost != "" && len(hosts) > 0 && !slices.Contains(hosts, s.credsHost):
		return abi.Errorf(abi.ErrInvalid, "--creds-host %s: this command does not talk to it; it talks to %s", s.credsHost, strings.Join(hosts, ", "))
	}
	return nil
}

// readCreds returns the first line of a file, or of standard input.
func readCreds(file string, stdin io.Reader) (string, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", fileError(err, "credentials")
		}
		defer f.Close()
		in = f
	}
	line, err := bufio.NewReader(io.LimitReader(in, maxCreds)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fileError(err, "credentials")
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// registries returns the hosts of references, each once.
func registries(refs []string) (hosts []string) {
	for _, ref := range refs {
		r, err := transport.ParseReference(ref)
		if err == nil && r.Transport == transport.Docker && !slices.Contains(hosts, r.Host) {
			hosts = append(hosts, r.Host)
		}
	}
	return hosts
}
