package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cepa/directory"
)

// Stored is the consensus that a node keeps in its folder, as it lies there.
type Stored struct {
	Dir         string // of the node
	Network     *directory.Network
	NetworkPath string
	SealedHead  []byte
	SealedBody  []byte // nil when there is none
}

// Inspect says what it can of the consensus, at now.
func (s *Stored) Inspect(now time.Time) (*directory.Inspection, error) {
	return directory.Inspect(s.SealedHead, s.SealedBody, s.Network, now)
}

// ErrNoConsensus says that a folder holds no consensus.
var ErrNoConsensus = errors.New("no consensus")

// LoadStored reads the consensus of the node, running or not, whose folder is dir: a demo's folder stands for its
// client, or else any of its nodes that has one. The network file is the one at networkPath, or if that is empty the
// one that the node's settings name, or a network.toml in the folder or the one above.
func LoadStored(dir, networkPath string) (*Stored, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("reading the consensus: %w", err)
	} else if !info.IsDir() {
		return loadStoredFile(dir, networkPath)
	}
	nodes := NodeFolders(dir)
	for _, node := range nodes {
		s, err := loadNode(node, networkPath)
		if errors.Is(err, ErrNoConsensus) && len(nodes) > 1 {
			continue
		}
		return s, err
	}
	return nil, fmt.Errorf("reading the consensus: there is %w in %s: the folder of a node that has been connected has one, and so has that of a demo", ErrNoConsensus, dir)
}

// NodeFolders returns the folders of the nodes in dir: dir itself when it is one, else those in it, the client first.
func NodeFolders(dir string) []string {
	if isNode(dir) {
		return []string{dir}
	}
	entries, _ := os.ReadDir(dir)
	var nodes []string
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); e.IsDir() && isNode(path) {
			nodes = append(nodes, path)
		}
	}
	slices.SortStableFunc(nodes, func(a, b string) int {
		rank := func(path string) int {
			if filepath.Base(path) == "client" {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
	return nodes
}

// isNode says whether a folder looks like that of one node.
func isNode(dir string) bool {
	for _, name := range append([]string{directory.HeadFile}, settingsFiles...) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return HasKeys(dir)
}

// settingsFiles are the names of settings in the folder of a node.
var settingsFiles = []string{"client.toml", "relay.toml", "authority.toml"}

// FindNetworkFile returns the path of the network file that a node in dir uses: what its settings there name, or a
// network.toml in the folder or in the one above.
func FindNetworkFile(dir string) (string, error) {
	for _, name := range settingsFiles {
		path := filepath.Join(dir, name)
		var settings map[string]any
		switch _, err := os.Stat(path); {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", fmt.Errorf("reading the settings: %w", err)
		}
		if err := loadTOML(path, &settings); err != nil {
			return "", err
		}
		if network, ok := settings["network"].(string); ok && network != "" {
			relativeTo(path, &network)
			return network, nil
		}
	}
	for _, path := range []string{filepath.Join(dir, "network.toml"), filepath.Join(dir, "..", "network.toml")} {
		if _, err := os.Stat(path); err == nil {
			return filepath.Clean(path), nil
		}
	}
	return "", fmt.Errorf("there is no network file in %s or above it: name it with --network FILE", dir)
}

// loadNode reads what one node keeps.
func loadNode(dir, networkPath string) (*Stored, error) {
	head := filepath.Join(dir, directory.HeadFile)
	if _, err := os.Stat(head); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the consensus: there is %w in %s yet", ErrNoConsensus, dir)
	}
	s := &Stored{Dir: dir}
	if err := s.loadNetwork(networkPath); err != nil {
		return nil, err
	}
	// A running node writes the body first and then the head: between the two they do not fit.
	for attempt := 0; ; attempt++ {
		if err := s.read(head, filepath.Join(dir, directory.BodyFile)); err != nil {
			return nil, err
		}
		in, err := s.Inspect(time.Now())
		if err != nil || in.BodyErr == nil || attempt == 5 {
			return s, nil
		}
		time.Sleep(40 * time.Millisecond)
	}
}

// loadStoredFile reads a head at path and the body beside it, which has the same name but for its end.
func loadStoredFile(path, networkPath string) (*Stored, error) {
	stem, ok := strings.CutSuffix(path, ".head")
	if !ok {
		return nil, fmt.Errorf("reading the consensus: %s is neither a folder nor a file NAME.head with a NAME.body beside it", path)
	}
	s := &Stored{Dir: filepath.Dir(path)}
	if err := s.loadNetwork(networkPath); err != nil {
		return nil, err
	}
	return s, s.read(path, stem+".body")
}

func (s *Stored) loadNetwork(path string) (err error) {
	if path == "" {
		if path, err = FindNetworkFile(s.Dir); err != nil {
			return err
		}
	}
	s.NetworkPath = path
	s.Network, err = LoadNetwork(path)
	return err
}

func (s *Stored) read(head, body string) (err error) {
	if s.SealedHead, err = readBounded(head, directory.MaxConsensusHead); err != nil {
		return fmt.Errorf("reading the consensus: %w", err)
	}
	s.SealedBody, err = readBounded(body, directory.MaxConsensusBody)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the consensus: %w", err)
	}
	return nil
}

// readBounded reads a file of at most limit bytes; of a longer one it returns one byte more than that, which no
// decoder takes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}
