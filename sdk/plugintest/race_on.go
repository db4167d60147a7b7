//go:build race

package plugintest

// setBytes is how much text the largest layer holds. The race detector slows everything down tenfold.
const setBytes = 2 << 20
