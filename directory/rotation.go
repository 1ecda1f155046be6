package directory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"cepa/env"
)

// Bounds of the network files that a node keeps and fetches.
const (
	networkBlob     = "network" // the files, oldest first, each with its length u32
	maxNetworkFiles = 16        // kept, for those who have an older one
	maxNetworkAsks  = 12        // requests for newer ones, one after the other
)

// networkText is a network file with its text.
type networkText struct {
	*Network
	text []byte
}

// NewestNetwork returns the network file to begin with: the one given, or a newer one of the same network that an
// earlier run has fetched, verified and stored.
func NewestNetwork(store env.Store, log *slog.Logger, given *Network) *Network {
	files := loadNetworks(store, log, given)
	return files[len(files)-1].Network
}

// loadNetworks returns the files of the Store and the one given, in the order of their serials; the last is to be used.
func loadNetworks(store env.Store, log *slog.Logger, given *Network) []networkText {
	text, err := given.AppendTOML(nil)
	if err != nil { // it would not have been read
		log.Error("the network file cannot be written; others will not get it from here", "err", err)
	}
	mine := networkText{given, text}
	data, err := store.Load(networkBlob)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			log.Warn("the stored network files cannot be read; using the one given", "err", err)
		}
		return []networkText{mine}
	}
	files, err := splitNetworks(data)
	if err != nil {
		log.Warn("the stored network files are damaged; using the one given", "err", err)
		return []networkText{mine}
	}
	if slices.ContainsFunc(files, func(f networkText) bool { return f.ID != given.ID || f.Test != given.Test }) {
		return []networkText{mine} // the folder was another network's
	}
	files = slices.DeleteFunc(files, func(f networkText) bool { return f.Serial == given.Serial })
	for _, f := range files {
		f.memo = given.memo
	}
	files = append(files, mine)
	slices.SortStableFunc(files, func(a, b networkText) int { return compareSerials(a.Network, b.Network) })
	return files
}

func compareSerials(a, b *Network) int {
	switch {
	case a.Serial < b.Serial:
		return -1
	case a.Serial > b.Serial:
		return 1
	}
	return 0
}

func joinNetworks(files []networkText) (data []byte) {
	for _, f := range files {
		data = binary.BigEndian.AppendUint32(data, uint32(len(f.text)))
		data = append(data, f.text...)
	}
	return data
}

func splitNetworks(data []byte) (files []networkText, err error) {
	for len(data) > 0 {
		if len(data) < 4 || uint64(binary.BigEndian.Uint32(data)) > uint64(len(data)-4) || len(files) >= maxNetworkFiles {
			return nil, fmt.Errorf("stored network files: %w", ErrMalformed)
		}
		n := binary.BigEndian.Uint32(data)
		text := data[4 : 4+n]
		file, err := ParseNetworkFile(text)
		if err != nil {
			return nil, err
		}
		files = append(files, networkText{file, text})
		data = data[4+n:]
	}
	return files, nil
}

// Network returns the network file in use: the newest that this node knows.
func (f *Follower) Network() *Network { return f.network }

// networkAfter returns the text of a network file for a node that has the one of that serial: the newest that replaces
// it, or nil when there is none. A node that is several files behind asks again with what it got.
func (f *Follower) networkAfter(serial uint64) []byte {
	if f.network.Serial <= serial {
		return nil
	}
	at := slices.IndexFunc(f.files, func(x networkText) bool { return x.Serial == serial })
	if at < 0 { // not known here: the oldest that may do
		at = slices.IndexFunc(f.files, func(x networkText) bool { return x.Serial > serial })
		return f.files[at].text
	}
	for i := len(f.files) - 1; i > at; i-- {
		if f.files[i].Replaces(f.files[at].Network) == nil {
			return f.files[i].text
		}
	}
	return f.files[at+1].text
}

// networkUpdate looks for a newer network file.
type networkUpdate struct {
	sources  []env.Target
	strange  []env.Target // showed a head that the present file's authorities have not signed
	asks     int
	replaced bool
}

// updateNetwork begins to look for a newer network file, because a consensus says that there is one or because heads
// are signed by authorities that the present file does not name: then those who showed them are asked first, and must
// have one.
func (f *Follower) updateNetwork(strange []env.Target) {
	if f.updating != nil || !f.running {
		return
	}
	u := &networkUpdate{strange: strange}
	u.sources = slices.Clone(strange)
	for _, t := range f.pick() {
		if !slices.ContainsFunc(u.sources, func(o env.Target) bool { return o.Identity == t.Identity }) {
			u.sources = append(u.sources, t)
		}
	}
	f.updating = u
	f.askNetwork(u)
}

func (f *Follower) askNetwork(u *networkUpdate) {
	if len(u.sources) == 0 || u.asks >= maxNetworkAsks {
		f.updating = nil
		f.afterUpdate(u)
		return
	}
	u.asks++
	from := u.sources[0]
	fetch(f.cfg.Fetcher, from, Request{Kind: AskNetworkFile, Serial: f.network.Serial}, MaxNetworkFile, func(status Status, text []byte, err error) {
		if !f.running || f.updating != u {
			return
		}
		switch {
		case err != nil:
			f.blame(from, err)
		case status == StatusOK:
			f.readNetwork(u, from, text)
			return
		case f.isStrange(u, from) && !u.replaced:
			// It follows authorities that nobody here knows, and cannot say by what right.
			f.blame(from, fmt.Errorf("%w: the head of a consensus", ErrSigners))
		}
		u.sources = u.sources[1:]
		f.askNetwork(u)
	})
}

func (f *Follower) isStrange(u *networkUpdate, from env.Target) bool {
	return slices.ContainsFunc(u.strange, func(o env.Target) bool { return o.Identity == from.Identity })
}

// readNetwork verifies a network file in the pool: it may have dozens of signatures.
func (f *Follower) readNetwork(u *networkUpdate, from env.Target, text []byte) {
	text = bytes.Clone(text)
	old := f.network
	var n *Network
	var err, unfit error
	f.env.Pool.Offload(func() {
		if n, err = ParseNetworkFile(text); err == nil {
			n.memo = old.memo
			unfit = n.Replaces(old)
		}
	}, func() {
		switch {
		case !f.running || f.updating != u:
			return
		case err != nil:
			f.blame(from, err)
		case unfit != nil:
			// It may have come by a file in between that this source does not have.
			f.log.Info("a newer network file does not follow the one here", "relay", from.Identity.Short(), "serial", n.Serial, "err", unfit)
		default:
			f.adoptNetwork(networkText{n, text})
			u.replaced = true
			f.askNetwork(u) // the same source: it may be ahead by more than one
			return
		}
		u.sources = u.sources[1:]
		f.askNetwork(u)
	})
}

// adoptNetwork takes a verified network file into use, and writes it down.
func (f *Follower) adoptNetwork(n networkText) {
	f.stats.NetworkFiles++
	f.log.Info("a new network file is in use", "serial", n.Serial, "authorities", len(n.Authorities), "quorum", n.Quorum)
	f.files = append(f.files, n)
	f.files = f.files[max(0, len(f.files)-maxNetworkFiles):]
	f.network = n.Network
	f.env.Store.Save(networkBlob, joinNetworks(f.files), func(err error) {
		if err != nil {
			f.gripes.warn("the new network file cannot be stored: the next start will have to fetch it", "err", err)
		}
	})
	if f.cfg.OnNetwork != nil {
		f.cfg.OnNetwork(n.Network)
	}
}

// afterUpdate goes on with the consensus by the new file.
func (f *Follower) afterUpdate(u *networkUpdate) {
	if !u.replaced {
		return
	}
	for _, t := range u.strange {
		f.sources.forgive(t.Identity)
	}
	f.failures = 0
	if f.round == nil {
		f.again(f.random(f.retryBase()))
	}
}

// behind says whether the authorities use a newer network file than this node.
func (f *Follower) behind() bool {
	return f.current != nil && f.current.NetworkSerial > f.network.Serial
}

// SetNetwork takes a newer network file into use: who the authorities are, and the parameters that are looked up when
// they are needed. Sizes of tables and rates of budgets are those of the start.
func (a *Agent) SetNetwork(n *Network) {
	for _, c := range a.network.Authorities {
		if t := a.own.told[c.Identity]; t != nil && !n.IsAuthority(c.Identity) {
			t.timer.Stop()
			delete(a.own.told, c.Identity)
		}
	}
	for _, c := range n.Authorities {
		if t := a.own.told[c.Identity]; t != nil {
			t.to = targetsOf([]Contact{c})[0]
		}
	}
	a.network, a.cfg.Network = n, n
	a.learnAddresses(a.cfg.Follower.Current())
	a.announce()
}

// SetNetwork takes a newer network file into use: tickets of its authorities count.
func (s *SpeedTests) SetNetwork(n *Network) { s.network = n }
