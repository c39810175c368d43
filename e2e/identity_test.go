package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
)

// TestJoinTokens makes join tokens with the command line and has real gateways
// use them: for a group, once, until they end, and until they are revoked.
func TestJoinTokens(t *testing.T) {
	b := startBackends(t)
	c := startManager(t)
	create := func(args ...string) (token, id string) {
		t.Helper()
		out, stderr, code := c.cli(append([]string{"token", "create"}, args...)...)
		if code != 0 {
			t.Fatalf("token create %v: %s", args, stderr)
		}
		token = strings.TrimSpace(out)
		id, _, _ = strings.Cut(token, ".")
		return token, id
	}
	once, onceID := create("--name", "edge machines", "--group", "edge", "--uses", "1", "--expires-in", "1h")
	short, _ := create("--expires-in", "1s")
	revoked, revokedID := create("--name", "lost laptop")
	if out, stderr, code := c.cli("token", "revoke", revokedID); code != 0 {
		t.Fatalf("token revoke: %s%s", out, stderr)
	}
	list, _, _ := c.cli("token", "list")
	if !strings.Contains(list, onceID) || !strings.Contains(list, "edge machines") || strings.Contains(list, revokedID) {
		t.Errorf("token list:\n%s", list)
	}
	if _, secret, _ := strings.Cut(once, "."); strings.Contains(list, secret) {
		t.Error("the list shows a secret")
	}
	eventually(t, 5*time.Second, "the short token ends", func() error {
		tokens, err := c.client.Tokens(t.Context())
		if err != nil {
			return err
		}
		for _, tok := range tokens {
			if strings.HasPrefix(short, tok.ID+".") && time.Now().Before(tok.Expires) {
				return errors.New("it has not ended")
			}
		}
		return nil
	})

	// join starts a gateway with that token and a group of its own asking.
	join := func(name, token, group string) *node {
		t.Helper()
		file := filepath.Join(c.dir, name+".token")
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return c.addNodeWith(name, b.config(), func(block map[string]any) {
			block["token_file"] = file
			if group != "" {
				block["group"] = group
			}
		})
	}
	join("gw-once", once, "")
	for _, n := range c.waitStates(30*time.Second, map[string]api.NodeState{"gw-once": api.Alive}) {
		if n.Name == "gw-once" && n.Group != "edge" {
			t.Errorf("gw-once is in group %s; want the token's, edge", n.Group)
		}
	}
	for _, tc := range []struct{ name, token, group, reason string }{
		{"gw-twice", once, "", "used"},
		{"gw-late", short, "", "expired"},
		{"gw-revoked", revoked, "", "does not know this join token"},
		{"gw-elsewhere", once, "core", "for group"},
	} {
		n := join(tc.name, tc.token, tc.group)
		eventually(t, 20*time.Second, tc.name+" is told why it may not join", func() error {
			if !strings.Contains(n.out.String(), tc.reason) {
				return fmt.Errorf("its log does not say %q", tc.reason)
			}
			return nil
		})
		serves(t, n)
		n.stop(t)
	}
	nodes, err := c.client.Nodes(t.Context())
	if err != nil || len(nodes) != 1 {
		t.Errorf("the manager lists %d nodes, %v; want gw-once alone", len(nodes), err)
	}
	t.Log("4 gateways with a used, an expired, a revoked and another group's token: all refused with the reason, all serve standalone")
}

// serves waits until a gateway answers, member or not.
func serves(t *testing.T, n *node) {
	t.Helper()
	eventually(t, 5*time.Second, n.name+" serves", func() error {
		return once(http.DefaultClient, "http://"+n.addr+"/healthy/1")
	})
}

// TestRevoke bars one of four gateways: it is refused and out of discovery at
// once, gets no new lease and no telemetry in, and the gossip key changes without
// anybody else noticing.
func TestRevoke(t *testing.T) {
	b := startBackends(t)
	c := startManager(t)
	want := map[string]api.NodeState{}
	for i := range 4 {
		n := c.addNode(fmt.Sprintf("gw-%d", i+1), b.config())
		want[n.name] = api.Alive
	}
	nodes := c.waitStates(60*time.Second, want)
	barred, others := c.nodes[3], c.nodes[:3]
	ids := map[string]api.Node{}
	for _, n := range nodes {
		ids[n.Name] = n
	}
	eventually(t, 30*time.Second, "all see each other", func() error { return agree(c.nodes, allAlive(c.nodes)) })
	key := func(n *node) (string, error) {
		s, err := statusOf(n)
		return s.Status.GossipKeyID, err
	}
	before, err := key(others[0])
	if err != nil || before == "" {
		t.Fatalf("gossip key %q, %v", before, err)
	}

	// Somebody watches the others all the time.
	quit := make(chan struct{})
	var watch sync.WaitGroup
	looks, gaps := 0, []string{}
	watch.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(100 * time.Millisecond):
			}
			looks++
			if err := agree(others, allAlive(others)); err != nil {
				gaps = append(gaps, err.Error())
			}
		}
	})
	began := time.Now()
	if err := c.client.NodeAction(t.Context(), ids[barred.name].ID, "revoke"); err != nil {
		t.Fatal(err)
	}
	if code, detail := asNode(t, c, barred, http.MethodGet, "/v1/nodes/"+string(ids[barred.name].ID)+"/plan"); code != http.StatusForbidden {
		t.Errorf("the revoked node's poll answers %d: %s; want 403", code, detail)
	} else {
		t.Logf("the revoked node's next request, %v after the order: 403 %s", time.Since(began).Round(time.Millisecond), detail)
	}
	if code, _ := asNode(t, c, barred, http.MethodPost, "/v1/renew"); code != http.StatusForbidden {
		t.Errorf("the revoked node's renewal answers %d; want 403", code)
	}
	for _, n := range others {
		id := string(ids[n.name].ID)
		if code, detail := asNode(t, c, n, http.MethodGet, "/v1/nodes/"+string(ids[others[0].name].ID)+"/plan"); n != others[0] && code == http.StatusOK {
			t.Errorf("%s (%s) reads another node's plan: %s", n.name, id, detail)
		}
	}
	var groups []api.TargetGroup
	if err := c.get("/v1/discovery/http_sd", c.token("reader.token"), &groups); err != nil || len(groups) != 3 {
		t.Errorf("discovery lists %d nodes, %v; want 3", len(groups), err)
	}
	eventually(t, 60*time.Second, "the others have a new gossip key alone", func() error {
		for _, n := range others {
			k, err := key(n)
			if err != nil {
				return err
			}
			if k == before || strings.Contains(k, ",") || k == "" {
				return fmt.Errorf("%s has %q", n.name, k)
			}
		}
		return nil
	})
	rotated := time.Since(began)
	eventually(t, 60*time.Second, "nobody sees the revoked node", func() error {
		for _, n := range others {
			seen, err := n.sees()
			if err != nil {
				return err
			}
			if s := seen[barred.addr]; s == "alive" || s == "suspect" {
				return fmt.Errorf("%s sees it %s", n.name, s)
			}
		}
		return nil
	})
	close(quit)
	watch.Wait()
	t.Logf("the gossip key changed in three steps within %v; %d looks at the three others meanwhile, %d of them not all alive; the revoked node is out of the gossip after %v",
		rotated.Round(100*time.Millisecond), looks, len(gaps), time.Since(began).Round(100*time.Millisecond))
	if len(gaps) > 0 {
		t.Errorf("the others lost each other: %v", gaps[0])
	}
	evs, err := c.client.Events(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, e := range evs {
		kinds[e.Kind]++
	}
	if kinds[events.NodeRevoked] != 1 || kinds[events.GossipKeyRotated] != 1 || kinds[events.NodeUnreachable]+kinds[events.NodeSuspect]+kinds[events.NodeDown] > 0 {
		t.Errorf("events: %v", kinds)
	}
	// It is a gateway all the same.
	serves(t, barred)
}

// asNode calls the node API with the certificate and key that a node keeps.
func asNode(t *testing.T, c *cluster, n *node, method, path string) (status int, detail string) {
	t.Helper()
	dir := filepath.Join(c.dir, n.name, "state")
	cert, err := keptCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, // this test asks who it is, and not who answers
	}}}
	u := url.URL{Scheme: "https", Host: c.nodeAPI, Path: path}
	req, err := http.NewRequestWithContext(t.Context(), method, u.String(), strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var p api.Problem
	if json.Unmarshal(b, &p) == nil && p.Detail != "" {
		return resp.StatusCode, p.Detail
	}
	return resp.StatusCode, string(b)
}

// keptCertificate reads what a node keeps of its identity, as a thief of its disk
// would.
func keptCertificate(dir string) (tls.Certificate, error) {
	body := func(name string) ([]byte, error) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		_, b, _ = bytes.Cut(b, []byte{'\n'}) // the first line is a checksum
		return b, err
	}
	saved, err := body("identity.json")
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := body("node.key")
	if err != nil {
		return tls.Certificate{}, err
	}
	var id struct {
		Certificate string `json:"certificate"`
	}
	if err := json.Unmarshal(saved, &id); err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair([]byte(id.Certificate), key)
}
