package gateway

import (
	"net"
	"os"
	"time"

	"github.com/binnacle-project/binnacle/gateway/agent"
)

// notifyService tells the service manager how the node is, as systemd's
// Type=notify asks for. Without one it does nothing. What it cannot send is of
// no consequence for traffic.
//
// Source: sd_notify(3).
func notifyService(p agent.Phase) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	if name[0] == '@' {
		name = "\x00" + name[1:] // an abstract socket
	}
	c, err := net.DialTimeout("unixgram", name, time.Second)
	if err != nil {
		return
	}
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(time.Second))
	c.Write([]byte(notification(p)))
}

// notification is the text for a phase.
func notification(p agent.Phase) string {
	switch p {
	case agent.PhaseReady:
		return "READY=1\nSTATUS=serving"
	case agent.PhaseReloading:
		return "RELOADING=1\nSTATUS=reading its file again"
	case agent.PhaseStopping:
		return "STOPPING=1\nSTATUS=draining"
	}
	return ""
}
