package main

import (
	"io"
	"testing"

	"github.com/binnacle-project/binnacle/cmd/internal/reference"
)

func TestReference(t *testing.T) { reference.Check(t, newRoot(io.Discard), "BINNACLE_") }
