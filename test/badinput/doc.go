// Package badinput holds the whole of convhost against input that is broken, hostile or lies: graphs, layers and plugins.
//
// Each case is built in a folder of its own and converted twice: through package host, with another conversion of a good
// image on the same host at the same time, and with the real command. What must hold for every case:
//
//   - the error wraps the class that the case names, and the command ends with the exit code of that class;
//   - the message names the descriptor and, where there is one, the offset; both ways say the same;
//   - nothing is published: a target that was not there is not there, one that was is unchanged to the byte;
//   - nothing is left in the temporary directory, no goroutine and no process;
//   - the good conversion beside it succeeds with the same digest, then and once more afterwards;
//   - time and memory are bounded.
//
// Cases of odd input that is right are here as well: they must convert, and the result must compare equal to the source.
//
// What the command prints goes into docs/errors.md. The test compares; to rewrite the tables there:
//
//	go test ./test/badinput -update
package badinput
