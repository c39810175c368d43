// Package diskspace tells how much may still be written to a disk. What to do when
// that is little is left to the stores that ask: each refuses writes at a bound of
// its own, so that all of them keep room for a last orderly step.
package diskspace
