package startlog

import (
	"bytes"
	"log"
	"testing"
)

func TestOtherLinesStay(t *testing.T) {
	var out bytes.Buffer
	l := log.New(filter{&out}, "", 0)
	l.Print("INFO: metrics: " + notice + " because of failed init")
	l.Print("ERROR: metrics: cannot read /proc/self/io")
	if got, want := out.String(), "ERROR: metrics: cannot read /proc/self/io\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
