package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"strings"

	"github.com/binnacle-project/binnacle"
)

// logBridge takes memberlist's log. Two facts stand nowhere else: that a probe
// of this member's failed, and that a member answers over TCP only; a test
// holds memberlist to the wording. What anyone on the network can cause is
// counted instead of logged.
type logBridge struct{ g *Gossip }

const (
	logSuspectBefore, logSuspectAfter = "memberlist: Suspect ", " has failed, no acks received"
	logTCPBefore, logTCPAfter         = "memberlist: Was able to connect to ", " over TCP but UDP probes failed"
)

// Write is called by the log package with one line at a time.
func (b *logBridge) Write(p []byte) (int, error) {
	line := string(bytes.TrimSpace(p))
	g := b.g
	if id, ok := between(line, logSuspectBefore, logSuspectAfter); ok {
		g.suspected(binnacle.NodeID(id))
	} else if id, ok := between(line, logTCPBefore, logTCPAfter); ok {
		g.udpBlocked(binnacle.NodeID(id))
	}
	level, message := logLevel(line)
	switch {
	case strings.Contains(message, "handler queue full"):
		g.count.handoff.Inc()
	case strings.Contains(message, "Decrypt packet failed"):
		g.count.undecryptable.Inc()
	case strings.Contains(message, "with unacceptable label"):
		g.count.foreign.Inc()
	case strings.Contains(message, "Refuting "):
		g.count.refuted.Inc()
	}
	g.log.Log(context.Background(), level, "memberlist", "message", message)
	return len(p), nil
}

// logLevel splits memberlist's level off a line. Its errors are things like one
// refused connection, which a rejoin mends: nothing in gossip needs a person
// at once.
func logLevel(line string) (slog.Level, string) {
	tag, message, ok := strings.Cut(line, "] memberlist: ")
	if !ok {
		return slog.LevelDebug, line
	}
	if tag == "[INFO" && strings.HasPrefix(message, "Marking ") {
		return slog.LevelInfo, message
	}
	return slog.LevelDebug, message
}

func between(s, before, after string) (string, bool) {
	_, rest, ok := strings.Cut(s, before)
	if !ok {
		return "", false
	}
	word, _, ok := strings.Cut(rest, after)
	return word, ok && word != "" && !strings.ContainsRune(word, ' ')
}
