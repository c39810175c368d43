package validate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// wantVersion is the only version of the configuration format there is.
const wantVersion = 3

// nodeOwned are the top-level keys that belong to one node. A revision may hold
// them, as most existing files do, but the node's own file wins.
var nodeOwned = []string{"port", "listen_ip", "tls", "plugin"}

// shape is the part of a configuration that checkShape looks at. Types are left
// open: Lura's own decoding says what is wrong with those.
type shape struct {
	Version   json.RawMessage            `json:"version"`
	Extra     map[string]json.RawMessage `json:"extra_config"`
	Endpoints []json.RawMessage          `json:"endpoints"`
}

// checkShape finds what Lura would accept, or refuse with less of an
// explanation. raw is a JSON object.
func checkShape(raw []byte) (faults, warnings []api.Fault) {
	fault := func(path, format string, args ...any) {
		faults = append(faults, api.Fault{Stage: stageSchema, Path: path, Message: fmt.Sprintf(format, args...)})
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(raw, &top); err != nil {
		return []api.Fault{syntaxFault(raw, err)}, nil
	}
	var doc shape
	// A wrong type below is Lura's to report; what could be decoded is.
	_ = json.Unmarshal(raw, &doc)

	switch version := string(doc.Version); {
	case version == "":
		fault("", "the key \"version\" is missing: a configuration has \"version\": %d", wantVersion)
	case version != fmt.Sprint(wantVersion):
		fault("/version", "version %.40s is not supported: want %d", version, wantVersion)
	}
	first := make(map[string]int)
	for i, e := range doc.Endpoints {
		path := fmt.Sprintf("/endpoints/%d", i)
		if bytes.Equal(e, []byte("null")) {
			fault(path, "an endpoint is an object, not null")
			continue
		}
		var ep struct {
			Endpoint string            `json:"endpoint"`
			Method   string            `json:"method"`
			Backend  []json.RawMessage `json:"backend"`
		}
		if json.Unmarshal(e, &ep) != nil {
			continue
		}
		for j, b := range ep.Backend {
			if bytes.Equal(b, []byte("null")) {
				fault(fmt.Sprintf("%s/backend/%d", path, j), "a backend is an object, not null")
			}
		}
		if ep.Method == "" {
			ep.Method = "GET"
		}
		key := strings.ToUpper(ep.Method) + " " + "/" + strings.TrimPrefix(ep.Endpoint, "/")
		if was, ok := first[key]; ok {
			fault(path, "the endpoint %s stands twice: it is /endpoints/%d already", key, was)
			continue
		}
		first[key] = i
	}

	// Lura matches keys whatever their case.
	for _, key := range slices.Sorted(maps.Keys(top)) {
		for _, owned := range nodeOwned {
			if strings.EqualFold(key, owned) {
				warnings = append(warnings, ownedWarning("/"+EscapePointer(key), key))
			}
		}
	}
	if _, ok := doc.Extra[binnacle.ConfigBlock]; ok {
		warnings = append(warnings, ownedWarning("/extra_config/"+binnacle.ConfigBlock, binnacle.ConfigBlock))
	}
	place(raw, faults)
	place(raw, warnings)
	return faults, warnings
}

func ownedWarning(path, key string) api.Fault {
	return api.Fault{Stage: stageSchema, Path: path, Message: fmt.Sprintf("%q belongs to each node: the node's own file wins, and a difference shows in the node's status", key)}
}

// reference matches a value that the node fills in, with the dollar before it
// that takes its meaning away.
var reference = regexp.MustCompile(`\$?\$\{(env|file):([^{}"\\]*)\}`)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// fillReferences puts something plausible where a node will put its own values:
// digits where a port stands, a word elsewhere. It keeps all lines.
func fillReferences(raw []byte) (filled []byte, count int, faults []api.Fault) {
	var out bytes.Buffer
	last := 0
	for _, m := range reference.FindAllSubmatchIndex(raw, -1) {
		out.Write(raw[last:m[0]])
		last = m[1]
		if bytes.HasPrefix(raw[m[0]:], []byte("$$")) {
			out.Write(raw[m[0]+1 : m[1]])
			continue
		}
		count++
		kind, name := string(raw[m[2]:m[3]]), string(raw[m[4]:m[5]])
		message := ""
		switch {
		case kind == "env" && !envName.MatchString(name):
			message = fmt.Sprintf("${env:%.60s} names no environment variable", name)
		case kind == "file" && !strings.HasPrefix(name, "/"):
			message = fmt.Sprintf("${file:%.60s} is no absolute path", name)
		}
		if message != "" {
			f := faultAt(raw, m[0], "", message)
			f.Stage = stageSchema
			faults = append(faults, f)
		}
		if m[0] > 0 && raw[m[0]-1] == ':' {
			out.WriteString("8080")
		} else {
			out.WriteString("placeholder")
		}
	}
	if last == 0 {
		return raw, 0, faults
	}
	out.Write(raw[last:])
	return out.Bytes(), count, faults
}
