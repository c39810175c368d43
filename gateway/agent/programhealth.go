package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// settle waits until the program works: it lives for a second, and answers at
// its health address.
func (c *programConductor) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.pr.Settle)
	defer cancel()
	alive := time.NewTimer(aliveFor)
	defer alive.Stop()
	select {
	case <-alive.C:
	case <-c.p.exited:
		return c.ended()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		err := c.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-c.p.exited:
			return c.ended()
		case <-ctx.Done():
			return fmt.Errorf("it does not answer at its health address within %v: %w", c.pr.Settle, err)
		}
	}
}

func (c *programConductor) ended() error {
	if c.p.cause != nil {
		return fmt.Errorf("it ended at once: %w", c.p.cause)
	}
	return errors.New("it ended at once, without an error; it must stay in the foreground")
}

// healthClient keeps no connection: a program that is to end shall not wait.
var healthClient = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (c *programConductor) probe(ctx context.Context) error {
	if c.p.gone() {
		return c.ended()
	}
	if c.pr.Health == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if addr, ok := strings.CutPrefix(c.pr.Health, "tcp://"); ok {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.pr.Health, nil)
	if err != nil {
		return err
	}
	resp, err := healthClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s answers %s", c.pr.Health, resp.Status)
	}
	return nil
}
