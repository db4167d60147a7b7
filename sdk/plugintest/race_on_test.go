//go:build race

package plugintest_test

// raceDetector tells whether this test was built with -race.
const raceDetector = true
