package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// plainTar decompresses a layer, because upstream's tools want a tar.
func plainTar(dir, layer string) (string, error) {
	in, err := os.Open(layer)
	if err != nil {
		return "", err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if errors.Is(err, gzip.ErrHeader) {
		return layer, nil
	}
	if err != nil {
		return "", err
	}
	out, err := os.CreateTemp(dir, filepath.Base(layer))
	if err != nil {
		return "", err
	}
	defer out.Close()
	_, err = io.Copy(out, z)
	return out.Name(), err
}

// writeTree writes a tar of files of all sizes up to 8 MiB, half text and half noise, total bytes in all.
func writeTree(file string, total int) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(3, 4))
	w := tar.NewWriter(f)
	var p []byte
	for i := 0; total > 0; i++ {
		if i%100 == 0 {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("t%03d/", i/100), Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1.7e9, 0)}); err != nil {
				return err
			}
		}
		n := min(total, 1<<(10+r.IntN(14))+r.IntN(1000))
		total -= n
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("t%03d/f%05d", i/100, i), Mode: 0o644, Size: int64(n), ModTime: time.Unix(1.7e9, 0)}); err != nil {
			return err
		}
		for n > 0 {
			for p = p[:0]; len(p) < 64<<10; {
				if i%2 == 0 {
					p = fmt.Appendf(p, "%x line %d of a file that has many\n", r.IntN(1<<20), len(p))
				} else {
					p = append(p, byte(r.Uint32()), byte(r.Uint32()>>8))
				}
			}
			p = p[:min(len(p), n)]
			if _, err := w.Write(p); err != nil {
				return err
			}
			n -= len(p)
		}
	}
	return w.Close()
}

// writeChange writes a layer that replaces one small file of another layer, with its directories, as builders do.
func writeChange(file, lower string) error {
	in, err := os.Open(lower)
	if err != nil {
		return err
	}
	defer in.Close()
	dirs := map[string]tar.Header{}
	var h *tar.Header
	for r := tar.NewReader(in); ; {
		if h, err = r.Next(); err != nil {
			return fmt.Errorf("%s: no file to change: %w", lower, err)
		}
		name := path.Clean(h.Name)
		if h.Typeflag == tar.TypeDir {
			dirs[name] = *h
		}
		if h.Typeflag == tar.TypeReg && h.Size > 0 && h.Size < 4096 && strings.Contains(name, "/") {
			break
		}
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	parts := strings.Split(path.Clean(h.Name), "/")
	for i := 1; i < len(parts); i++ {
		if d, ok := dirs[strings.Join(parts[:i], "/")]; ok {
			if err := w.WriteHeader(&d); err != nil {
				return err
			}
		}
	}
	body := []byte("this is new\n")
	h.Size, h.ModTime = int64(len(body)), h.ModTime.Add(time.Hour)
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	if _, err := w.Write(body); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}
