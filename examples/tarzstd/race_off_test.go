//go:build !race

package main

// raceDetector tells whether this test was built with -race.
const raceDetector = false
