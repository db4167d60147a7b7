// Package imports holds no code, only the test that keeps imports running one way: cmd → host → abi ← sdk ← plugins, with
// internal under host and sdk. The table in imports_test.go says what each part must not reach, also through others,
// and why.
package imports
