// Package startlog keeps one line of a library off the standard error of all
// programs: where the kernel gives no pressure stall information, the metrics
// library says so through package log when it is initialized, before any main
// runs, in every call of the command line and in front of the first line of JSON
// logs.
//
// Of the packages whose imports are initialized, that with the first import path is
// next. This one waits for package log and little else, the library for packages that
// come later. Import it for its effect:
//
//	import _ "github.com/binnacle-project/binnacle/cmd/internal/startlog"
package startlog

import (
	"bytes"
	"io"
	"log"
	"os"
)

// notice is part of the line that nobody can act on.
const notice = "disable exposing PSI metrics"

func init() { log.SetOutput(filter{os.Stderr}) }

// filter drops the notice; everything else goes on. Package log makes one call of
// Write for each line.
type filter struct{ w io.Writer }

func (f filter) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(notice)) {
		return len(line), nil
	}
	return f.w.Write(line)
}
