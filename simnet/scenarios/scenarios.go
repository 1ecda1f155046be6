// Package scenarios holds the scenarios that come with cepa, as files. `cepa sim list` names them.
package scenarios

import "embed"

// Files are the scenarios, each NAME.toml.
//
//go:embed *.toml
var Files embed.FS
