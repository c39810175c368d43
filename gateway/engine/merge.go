package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// nodeKeys are the top-level keys that belong to one node, each with the value
// that holds where neither file says one. The cluster block is the other.
var nodeKeys = map[string]any{"port": float64(8080), "listen_ip": "", "tls": nil, "plugin": nil}

const keyExtraConfig = "extra_config"

// Merge lays the node's own keys over a revision: the cluster block, port,
// listen_ip, tls and plugin of own win, and a revision never sets them.
// overridden names, sorted, the keys that the revision sets otherwise than the
// node has them. own may be nil: then the defaults win.
//
// Keys match as encoding/json matches them, whatever their case, because Lura
// would read them so. The result is revision itself, byte for byte, when
// nothing had to be changed.
func Merge(own, revision []byte) (effective []byte, overridden []string, err error) {
	if own == nil {
		own = []byte("{}")
	}
	mine, err := object(own)
	if err != nil {
		return nil, nil, fmt.Errorf("read the node's own file: %w", err)
	}
	rev, err := object(revision)
	if err != nil {
		return nil, nil, fmt.Errorf("read the revision: %w", err)
	}
	changed := false
	for key, fallback := range nodeKeys {
		diff, touched := overlay(rev, mine, key, fallback)
		if diff {
			overridden = append(overridden, key)
		}
		changed = changed || touched
	}
	diff, touched, err := overlayCluster(rev, mine)
	if err != nil {
		return nil, nil, err
	}
	if diff {
		overridden = append(overridden, keyExtraConfig+"."+binnacle.ConfigBlock)
	}
	slices.Sort(overridden)
	if !changed && !touched {
		return revision, overridden, nil
	}
	effective, err = json.Marshal(rev)
	if err != nil {
		return nil, nil, fmt.Errorf("write the merged configuration: %w", err)
	}
	return effective, overridden, nil
}

func object(raw []byte) (map[string]json.RawMessage, error) {
	if f := checkSyntax(raw); f != nil {
		return nil, &BuildError{[]api.Fault{*f}}
	}
	var m map[string]json.RawMessage
	err := json.Unmarshal(raw, &m)
	return m, err
}

// overlay makes rev have key as mine has it. diff says that rev had set it to
// something else than what holds on the node; touched that rev was changed.
func overlay(rev, mine map[string]json.RawMessage, key string, fallback any) (diff, touched bool) {
	theirs, sets := takeFold(rev, key)
	ours, has := lookFold(mine, key)
	want := fallback
	if has {
		rev[key] = ours
		want = value(ours)
	}
	if !sets {
		return false, has
	}
	diff = !reflect.DeepEqual(value(theirs), want)
	return diff, diff || !has
}

// overlayCluster does the same for the block inside extra_config.
func overlayCluster(rev, mine map[string]json.RawMessage) (diff, touched bool, err error) {
	block := func(m map[string]json.RawMessage, name string) (map[string]json.RawMessage, error) {
		raw, ok := lookFold(m, keyExtraConfig)
		if !ok || bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
			return map[string]json.RawMessage{}, nil
		}
		var e map[string]json.RawMessage
		if err := json.Unmarshal(raw, &e); err != nil {
			return nil, fmt.Errorf("read extra_config of %s: want a JSON object: %w", name, err)
		}
		return e, nil
	}
	ours, err := block(mine, "the node's own file")
	if err != nil {
		return false, false, err
	}
	theirs, err := block(rev, "the revision")
	if err != nil {
		return false, false, err
	}
	own, has := ours[binnacle.ConfigBlock]
	set, sets := theirs[binnacle.ConfigBlock]
	if !has && !sets {
		return false, false, nil
	}
	diff = sets && (!has || !reflect.DeepEqual(value(own), value(set)))
	if has {
		theirs[binnacle.ConfigBlock] = own
	} else {
		delete(theirs, binnacle.ConfigBlock)
	}
	raw, err := json.Marshal(theirs)
	if err != nil {
		return false, false, fmt.Errorf("write extra_config: %w", err)
	}
	takeFold(rev, keyExtraConfig)
	rev[keyExtraConfig] = raw
	return diff, true, nil
}

// lookFold finds key in any case; of several the exact one, else the first in
// order.
func lookFold(m map[string]json.RawMessage, key string) (json.RawMessage, bool) {
	if v, ok := m[key]; ok {
		return v, true
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if strings.EqualFold(k, key) {
			return m[k], true
		}
	}
	return nil, false
}

// takeFold removes key in all its cases and returns what lookFold would.
func takeFold(m map[string]json.RawMessage, key string) (json.RawMessage, bool) {
	v, ok := lookFold(m, key)
	maps.DeleteFunc(m, func(k string, _ json.RawMessage) bool { return strings.EqualFold(k, key) })
	return v, ok
}

// value decodes for comparison; raw is valid JSON.
func value(raw json.RawMessage) (v any) {
	_ = json.Unmarshal(raw, &v) // valid, so it cannot fail into any
	return v
}
