package e2e

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type composeService struct {
	Image       string            `yaml:"image"`
	Build       string            `yaml:"build"`
	Command     []string          `yaml:"command"`
	Ports       []string          `yaml:"ports"`
	Volumes     []string          `yaml:"volumes"`
	Environment map[string]string `yaml:"environment"`
	HealthCheck struct {
		Test []string `yaml:"test"`
	} `yaml:"healthcheck"`
	DependsOn map[string]any `yaml:"depends_on"`
	Hostname  string         `yaml:"hostname"`
}

// TestCompose keeps compose.yaml true without a container engine: mounted paths
// are there, commands and their flags exist, published ports are listened on,
// images are pinned, and names that one file uses are those of the other.
func TestCompose(t *testing.T) {
	b, err := os.ReadFile("../compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Services map[string]composeService `yaml:"services"`
		Volumes  map[string]any            `yaml:"volumes"`
	}
	if err := yaml.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"manager", "gw-1", "gw-2", "gw-3", "backends", "traffic", "haproxy", "grafana"} {
		if _, ok := f.Services[want]; !ok {
			t.Errorf("there is no service %s", want)
		}
	}
	pinned := regexp.MustCompile(`:[0-9]+\.[0-9]+\.[0-9]+$`)
	for name, s := range f.Services {
		if !pinned.MatchString(s.Image) {
			t.Errorf("%s: image %s is not pinned to a version", name, s.Image)
		}
		for dep := range s.DependsOn {
			if _, ok := f.Services[dep]; !ok {
				t.Errorf("%s depends on %s, which is no service", name, dep)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if !strings.HasPrefix(from, ".") {
				if _, ok := f.Volumes[from]; !ok {
					t.Errorf("%s: volume %s is not declared", name, from)
				}
			} else if _, err := os.Stat(filepath.Join("..", from)); err != nil {
				t.Errorf("%s mounts %s: %v", name, from, err)
			}
		}
		for _, args := range [][]string{s.Command, trimCMD(s.HealthCheck.Test)} {
			if len(args) == 0 {
				continue
			}
			// --help at the end parses every flag before it, and does nothing.
			out, err := exec.Command(filepath.Join(bin, args[0]), append(args[1:], "--help")...).CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v: %v\n%s", name, args, err, out)
			}
		}
	}

	// The manager listens on what is published and on what others call.
	manager := strings.Join(f.Services["manager"].Command, " ")
	for _, p := range f.Services["manager"].Ports {
		_, port, err := net.SplitHostPort(p[strings.Index(p, ":")+1:])
		if err != nil || !strings.Contains(manager, "-addr=:"+port) {
			t.Errorf("manager: published port %s is not one of its addresses", p)
		}
	}
	conf, err := os.ReadFile("../compose/krakend.json")
	if err != nil {
		t.Fatal(err)
	}
	var gw struct {
		Port      int `json:"port"`
		Endpoints []struct {
			Backend []struct {
				Host []string `json:"host"`
			} `json:"backend"`
		} `json:"endpoints"`
		ExtraConfig map[string]map[string]any `json:"extra_config"`
	}
	if err := json.Unmarshal(conf, &gw); err != nil {
		t.Fatal(err)
	}
	if got := gw.ExtraConfig["@cluster"]["manager"]; got != "manager:9899" || !strings.Contains(manager, "--node-addr=:9899") {
		t.Errorf("the gateways look for the manager at %v, it has %s", got, manager)
	}
	if got := gw.ExtraConfig["@cluster"]["token_file"]; got != "/tokens/join.token" || !strings.Contains(manager, "--tokens-dir=/tokens") {
		t.Errorf("the gateways look for the token in %v", got)
	}
	if !slices.Contains(f.Services["gw-1"].Ports, "127.0.0.1:8081:8080") || gw.Port != 8080 {
		t.Errorf("gw-1 publishes %v, the gateway listens on %d", f.Services["gw-1"].Ports, gw.Port)
	}
	for _, e := range gw.Endpoints {
		for _, be := range e.Backend {
			for _, h := range be.Host {
				if !regexp.MustCompile(`^http://backends:806[1-4]$`).MatchString(h) {
					t.Errorf("backend %s is none of the service backends (8061 to 8064)", h)
				}
			}
		}
	}
	if out, err := exec.Command(filepath.Join(bin, "binnacle-gateway"), "check", "-c", "../compose/krakend.json").CombinedOutput(); err != nil {
		t.Errorf("the gateways' configuration: %v\n%s", err, out)
	}

	// HAProxy listens on what is published, asks the manager's DNS, and takes its
	// file.
	haproxy, err := os.ReadFile("../compose/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(f.Services["haproxy"].Ports, "127.0.0.1:8080:8080") || !strings.Contains(string(haproxy), "bind :8080") {
		t.Errorf("haproxy publishes %v and listens on something else", f.Services["haproxy"].Ports)
	}
	if !strings.Contains(string(haproxy), "nameserver manager manager:53535") || !strings.Contains(manager, "--dns-addr=:53535") {
		t.Errorf("haproxy asks for names elsewhere than at the manager's --dns-addr: %s", manager)
	}
	if path, err := exec.LookPath("haproxy"); err == nil {
		local := filepath.Join(t.TempDir(), "haproxy.cfg") // the name is known in the containers only
		if err := os.WriteFile(local, []byte(strings.ReplaceAll(string(haproxy), "manager:53535", "127.0.0.1:53535")), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(path, "-c", "-f", local).CombinedOutput(); err != nil {
			t.Errorf("haproxy does not take its file: %v\n%s", err, out)
		}
	} else {
		t.Log("haproxy is not here: its file was not checked by it")
	}

	// Grafana's provisioning uses the variables and paths that compose gives.
	sources, err := os.ReadFile("../grafana/provisioning/datasources/binnacle.yaml")
	if err != nil {
		t.Fatal(err)
	}
	env := f.Services["grafana"].Environment
	for _, m := range regexp.MustCompile(`\$(BINNACLE_[A-Z_]+)`).FindAllStringSubmatch(string(sources), -1) {
		if env[m[1]] == "" {
			t.Errorf("the data sources use %s, which compose.yaml does not set", m[0])
		}
	}
	if !strings.Contains(string(sources), "$__file{/tokens/reader.token}") || !slices.Contains(f.Services["grafana"].Volumes, "tokens:/tokens:ro") {
		t.Error("the data sources read a token that compose.yaml does not mount")
	}
	provider, err := os.ReadFile("../grafana/provisioning/dashboards/binnacle.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var mounted string
	for _, v := range f.Services["grafana"].Volumes {
		if parts := strings.Split(v, ":"); parts[0] == "./grafana/dashboards" {
			mounted = parts[1]
		}
	}
	if mounted == "" || !strings.Contains(string(provider), "path: "+mounted) {
		t.Errorf("dashboards are mounted at %q, the provider looks elsewhere", mounted)
	}
}

// TestComposeOverride keeps compose.victoria.yaml and the files that it mounts
// true to each other and to compose.yaml.
func TestComposeOverride(t *testing.T) {
	read := func(name string) (text string) {
		t.Helper()
		b, err := os.ReadFile("../" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(b, new(map[string]any)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return string(b)
	}
	type file struct {
		Services map[string]composeService `yaml:"services"`
		Volumes  map[string]any            `yaml:"volumes"`
	}
	var base, over file
	if err := yaml.Unmarshal([]byte(read("compose.yaml")), &base); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(read("compose.victoria.yaml")), &over); err != nil {
		t.Fatal(err)
	}
	known := func(service string) bool {
		_, a := base.Services[service]
		_, b := over.Services[service]
		return a || b
	}
	pinned := regexp.MustCompile(`:v?[0-9]+\.[0-9]+\.[0-9]+$`)
	for name, s := range over.Services {
		if s.Image != "" && !pinned.MatchString(s.Image) {
			t.Errorf("%s: image %s is not pinned to a version", name, s.Image)
		}
		for dep := range s.DependsOn {
			if !known(dep) {
				t.Errorf("%s depends on %s, which is no service", name, dep)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if strings.HasPrefix(from, ".") {
				if _, err := os.Stat(filepath.Join("..", from)); err != nil {
					t.Errorf("%s mounts %s: %v", name, from, err)
				}
			} else if _, a := base.Volumes[from]; !a {
				if _, b := over.Volumes[from]; !b {
					t.Errorf("%s: volume %s is not declared", name, from)
				}
			}
		}
	}
	if got := over.Services["manager"].Environment["BINNACLE_FORWARD_OTLP"]; got != "http://collector:4318" || !strings.Contains(read("compose/collector.yaml"), `http: {endpoint: "0.0.0.0:4318"}`) {
		t.Errorf("the manager forwards to %q, the collector listens elsewhere", got)
	}
	// Every address inside is a service, and each of ours is at its port.
	ports := map[string]string{"manager": "9897 4318", "victoriametrics": "8428", "victoriatraces": "10428"}
	for _, name := range []string{"compose/collector.yaml", "compose/scrape.yaml", "compose/victoria-datasources.yaml"} {
		text := read(name)
		found := regexp.MustCompile(`([a-z]+):([0-9]{4,5})\b`).FindAllStringSubmatch(text, -1)
		if len(found) == 0 {
			t.Errorf("%s names no service", name)
		}
		for _, m := range found {
			if !known(m[1]) || !slices.Contains(strings.Fields(ports[m[1]]), m[2]) {
				t.Errorf("%s: %s is no service at that port", name, m[0])
			}
		}
		for _, m := range regexp.MustCompile(`/tokens/([a-z]+)\.token`).FindAllStringSubmatch(text, -1) {
			if !slices.Contains([]string{"join", "admin", "reader", "otlp"}, m[1]) {
				t.Errorf("%s: the manager makes no %s", name, m[0])
			}
		}
	}
}

func trimCMD(test []string) []string {
	if len(test) > 0 && test[0] == "CMD" {
		return test[1:]
	}
	return test
}
