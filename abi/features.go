package abi

// Features lists what a host of this version can do beyond the operations themselves. A plugin names in Description.Needs
// what it cannot work without; the host refuses it with a clear message when one is missing. Names with a colon say which
// implementation stands behind an algorithm, since output bits depend on it.
func Features() []string {
	return []string{
		"entries", "tar", "stored",
		"digest/sha256", "digest/blake3", "crc32c",
		"codec/lz4_block", "codec/zstd", "codec/gzip", "codec/deflate",
		"codec/lz4_block:convhost-1", "codec/zstd:convhost-1", // of level 0
		"filter/gzip", "filter/zstd",
		"decode", "decode/prefix", "dedup/plan", "align", "rawsum", "rawsum/shared",
		"attach",
		"dict",
	}
}
