//go:build !race

package plugintest

// setBytes is how much text the largest layer holds: with what is added, it is larger than any chunk.
const setBytes = 12 << 20
