package main

import (
	"testing"
	"time"
)

func TestParseDays(t *testing.T) {
	const day = 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"0s": 0, "6d": 6 * day, "1d12h": 36 * time.Hour, "36h": 36 * time.Hour, "30d0s": 30 * day,
		"": -1, "d": -1, "-1d": -1, "-1h": -1, "1d-1h": -1, "six": -1, "1.5d": -1, "99999999d": -1, "1d2d": -1,
	} {
		got, err := parseDays(in)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("parseDays(%q): got %v, %v; want %v", in, got, err, want)
		}
	}
}
