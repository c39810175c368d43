// Package configschema holds the JSON Schema of the configurations that nodes
// take: for editors, which get it from `binnacle config schema` or GET
// /v1/schema/config, and for the validation of a revision. It imports nothing of
// ours, and features, manager and tools import it.
//
// The schema is generated from the tables of the gateway's engine (go test
// ./gateway/engine -run Schema -update).
package configschema

import _ "embed"

// JSON is the schema, of draft 2020-12. Its $id ends with its version.
//
//go:embed krakend.schema.json
var JSON []byte

// Version rises when a file that was valid may not be any more.
const Version = "1"
