package main

import "runtime/debug"

// release is the version of a build for a release: deploy/build gives it to the linker.
var release string

// version is the release, else the module's version when it was installed as one, else the commit
// it was built from, else "unknown".
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return "unknown"
}
