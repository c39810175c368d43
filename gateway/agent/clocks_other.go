//go:build !linux

package agent

import "github.com/binnacle-project/binnacle/licensing"

func machineClocks() func() licensing.Clocks { return processClocks() }
