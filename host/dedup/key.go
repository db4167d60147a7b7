package dedup

import (
	"encoding/binary"
	"hash"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
)

// Kind says what a record is about.
type Kind string

// Kinds of records.
const (
	KindLayer    Kind = "layer"
	KindManifest Kind = "manifest"
)

// generation is part of every key: it changes with the meaning of records and keys.
const generation = "1"

// Key names a record. Make it with LayerKey.Key or ManifestKey.Key.
type Key struct {
	Kind Kind          `json:"kind"`
	ID   digest.Digest `json:"id"` // sha256 of all that the result depends on
}

// String returns KIND/DIGEST.
func (k Key) String() string { return string(k.Kind) + "/" + k.ID.String() }

// Validate returns abi.ErrInvalid for keys that cannot be meant. A valid ID is 64 lower-case hexadecimal digits behind
// "sha256:", and so safe in a file name.
func (k Key) Validate() error {
	if !slices.Contains([]Kind{KindLayer, KindManifest}, k.Kind) {
		return abi.Errorf(abi.ErrInvalid, "dedup key: %q is no kind of record", string(k.Kind))
	}
	if err := k.ID.Validate(); err != nil || k.ID.Algorithm() != digest.SHA256 {
		return abi.Errorf(abi.ErrInvalid, "dedup key: %q is not a sha256 digest", string(k.ID))
	}
	return nil
}

// Engine is what converts.
type Engine struct {
	Format  string // name of the plugin
	Version string // of the plugin
	Code    string // digest of the code that runs; must not be empty
	Host    string // what the host adds of its own: its codecs, by a name that changes with their bytes
}

// LayerKey is everything that the artifacts of one layer depend on. The request names the source by digest, the options,
// parents and dictionaries by digest: all that a plugin learns beside the bytes themselves. Options should have their
// defaults filled in, so that naming a default makes no difference.
type LayerKey struct {
	Engine  Engine
	Request abi.ConvertRequest
}

// Key returns the name of the record.
func (k *LayerKey) Key() Key {
	return k.Engine.key(KindLayer, abi.Marshal(&k.Request))
}

// ManifestKey is everything that a converted image depends on. The request names the layers in order, without parts and
// states, which follow from the rest, and holds the config whole.
type ManifestKey struct {
	Engine Engine
	Source digest.Digest        // of the manifest
	Layers []abi.ConvertRequest // what each layer's conversion is asked for, without parents
	Merge  abi.MergeRequest
	Output string // what else the host was asked for: media types, references; in a form that does not change
}

// Key returns the name of the record.
func (k *ManifestKey) Key() Key {
	parts := [][]byte{[]byte(k.Source), []byte(k.Output), abi.Marshal(&k.Merge)}
	for i := range k.Layers {
		parts = append(parts, abi.Marshal(&k.Layers[i]))
	}
	return k.Engine.key(KindManifest, parts...)
}

// key digests all parts, each behind its length, so that no two lists of parts look the same.
func (e Engine) key(kind Kind, parts ...[]byte) Key {
	d := digest.SHA256.Digester()
	for _, s := range []string{"convhost dedup", generation, string(kind), e.Format, e.Version, e.Code, e.Host} {
		add(d.Hash(), []byte(s))
	}
	for _, p := range parts {
		add(d.Hash(), p)
	}
	return Key{Kind: kind, ID: d.Digest()}
}

func add(h hash.Hash, b []byte) {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(b)))
	h.Write(n[:])
	h.Write(b)
}
