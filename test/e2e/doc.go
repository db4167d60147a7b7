// Package e2e runs the convhost command from outside, as its users do: killed at any moment, in every runtime, on one core and
// two, with layers larger than memory. Environment variables widen it: CONVHOST_TESTDATA names a folder with larger images,
// CONVHOST_LARGE=1 adds layers of a million files and of gigabytes.
package e2e
