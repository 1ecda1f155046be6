package daemon

import "cepa/flow"

// What of the process's open files is for something else than links: the node's own, and of the rest a quarter for
// connections of streams.
const (
	ownFiles  = 256
	mostLinks = 14_000 // package link has a bound of 16,384, of which its last eighth is for dialling
	fewFiles  = 4096   // below, a relay that others want to use meets its limit
)

// linksFor is how many links fit into so many open files.
func linksFor(files int) int {
	return min(max((files-ownFiles)/4*3, 64), mostLinks)
}

// capacity is how many links the node may have, and says so.
func (s *shell) capacity() int {
	files, known := fileLimit()
	if !known {
		return flow.DefaultLimits().MaxLinks
	}
	links := linksFor(files)
	s.options.Log.Info("open files allow so many links", "open_files", files, "links", links)
	if files < fewFiles {
		s.options.Log.Warn("few open files are allowed, which bounds how many can use this relay: raise the limit (ulimit -n, LimitNOFILE in systemd)", "open_files", files, "links", links)
	}
	return links
}
