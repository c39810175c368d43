package pagetls

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// lookEvery is how often a handshake looks whether the files changed: often
// enough for a renewal, and no cost for many handshakes.
const lookEvery = 10 * time.Second

// Files returns the configuration for the certificate chain and key in two PEM
// files. They are looked at again while the server runs, so that a renewed
// certificate needs no restart; a pair that does not load leaves the last good
// one in place, with a warning. An error says that the pair does not load now.
func Files(certFile, keyFile string, log *slog.Logger) (*tls.Config, error) {
	p := &pair{certFile: certFile, keyFile: keyFile, log: log}
	if err := p.load(p.look()); err != nil {
		return nil, err
	}
	p.looked = time.Now()
	return config(p.get), nil
}

// config is what both kinds share.
func config(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{GetCertificate: get, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
}

// pair is a certificate on disk.
type pair struct {
	certFile, keyFile string
	log               *slog.Logger

	mu     sync.Mutex // guards what follows
	cert   *tls.Certificate
	seen   [2]stamp // of the files as last read, also when they did not load
	looked time.Time
}

// stamp tells two states of a file apart.
type stamp struct {
	modified time.Time
	size     int64
}

func (p *pair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.looked) >= lookEvery {
		p.looked = now
		if at := p.look(); at != p.seen {
			if err := p.load(at); err != nil {
				p.log.Warn("the new certificate of the page does not load: the old one stays", "error", err)
			} else {
				p.log.Info("the certificate of the page was read again", "file", p.certFile)
			}
		}
	}
	return p.cert, nil
}

// look returns the state of both files; a missing one has the zero stamp.
func (p *pair) look() (at [2]stamp) {
	for i, name := range []string{p.certFile, p.keyFile} {
		if fi, err := os.Stat(name); err == nil {
			at[i] = stamp{fi.ModTime(), fi.Size()}
		}
	}
	return at
}

// load reads the pair, whose files were in the state at before.
func (p *pair) load(at [2]stamp) error {
	p.seen = at
	cert, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
	if err != nil {
		return fmt.Errorf("%s, %s: %w", p.certFile, p.keyFile, err)
	}
	p.cert = &cert
	return nil
}
