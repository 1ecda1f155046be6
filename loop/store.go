package loop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"cepa/env"
)

// store is env.Store with an end.
type store interface {
	env.Store
	close() // when all saves are made
}

// validName reports whether name may be given to a blob. Of the contract's names, those that
// begin or end with a dot are refused: they would be "..", hidden, or the same as others on
// some systems.
func validName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return len(name) >= 1 && len(name) <= 64 && name[0] != '.' && name[len(name)-1] != '.'
}

func badName(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fmt.Errorf("not a name of the store: %w", fs.ErrInvalid)}
}

// memoryStore keeps blobs as long as the loop lives. It belongs to the loop.
type memoryStore struct {
	l     *Loop
	blobs map[string][]byte
}

func newMemoryStore(l *Loop) *memoryStore {
	return &memoryStore{l: l, blobs: map[string][]byte{}}
}

func (s *memoryStore) Load(name string) ([]byte, error) {
	if !validName(name) {
		return nil, badName("load", name)
	}
	data, ok := s.blobs[name]
	if !ok {
		return nil, &fs.PathError{Op: "load", Path: name, Err: fs.ErrNotExist}
	}
	return slices.Clone(data), nil
}

func (s *memoryStore) Save(name string, data []byte, done func(error)) {
	var err error
	if validName(name) {
		s.blobs[name] = slices.Clone(data)
	} else {
		err = badName("save", name)
	}
	if done != nil {
		s.l.Post(func() { done(err) })
	}
}

func (s *memoryStore) close() {}

const (
	lockName   = "_lock" // not names of blobs: these have no underscore
	tempPrefix = "_new-"
)

// dirStore keeps each blob in a file of its name. One goroutine makes the saves, in order; it
// is started by the first.
type dirStore struct {
	l    *Loop
	dir  string
	lock *os.File

	mu      sync.Mutex
	more    sync.Cond // saves or closed
	saves   []save
	running bool
	closed  bool
	wait    sync.WaitGroup
}

type save struct {
	name string
	data []byte
	done func(error)
}

// openDirStore makes dir if it is missing, and locks it against other processes.
func openDirStore(l *Loop, dir string) (*dirStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &dirStore{l: l, dir: dir, lock: lock}
	s.more.L = &s.mu
	s.sweep()
	return s, nil
}

// sweep removes what saves have left behind that were cut off by a crash.
func (s *dirStore) sweep() {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		s.l.log.Warn("reading the state directory", "err", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			_ = os.Remove(filepath.Join(s.dir, e.Name()))
		}
	}
}

// lockDir opens and locks the lock file of dir, and writes this process's id into it for those
// that find it locked. The lock goes with the process, whatever becomes of the file.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	switch err := lockFile(f); {
	case errors.Is(err, errLocked):
		var pid [20]byte
		n, _ := f.Read(pid[:])
		_ = f.Close()
		return nil, fmt.Errorf("another cepa (pid %s) uses %s: stop it, or choose another directory", strings.TrimSpace(string(pid[:n])), dir)
	case err != nil:
		_ = f.Close()
		return nil, fmt.Errorf("locking the state directory %s: %w", dir, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	return f, nil
}

// errLocked says that somebody else holds a lock.
var errLocked = errors.New("locked")

// Load gives what was last saved, also when it is not yet on the disk.
func (s *dirStore) Load(name string) ([]byte, error) {
	if !validName(name) {
		return nil, badName("load", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range slices.Backward(s.saves) {
		if v.name == name {
			return slices.Clone(v.data), nil
		}
	}
	return os.ReadFile(filepath.Join(s.dir, name))
}

func (s *dirStore) Save(name string, data []byte, done func(error)) {
	if !validName(name) {
		if done != nil {
			s.l.Post(func() { done(badName("save", name)) })
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saves = append(s.saves, save{name, slices.Clone(data), done})
	if !s.running && !s.closed {
		s.running = true
		s.wait.Add(1)
		go s.run()
	}
	s.more.Signal()
}

// run makes the saves. A save stays in the queue while it is made, for Load.
func (s *dirStore) run() {
	defer s.wait.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.saves) == 0 && !s.closed {
			s.more.Wait()
		}
		if len(s.saves) == 0 {
			return
		}
		v := s.saves[0]
		s.mu.Unlock()
		err := s.write(v.name, v.data)
		if err != nil {
			s.l.log.Error("saving state", "name", v.name, "err", err)
		}
		s.mu.Lock()
		s.saves[0] = save{}
		s.saves = s.saves[1:]
		if v.done != nil {
			s.l.Post(func() { v.done(err) })
		}
	}
}

// write replaces a file so that after a crash there is the old one or the new one.
func (s *dirStore) write(name string, data []byte) (err error) {
	path, temp := filepath.Join(s.dir, name), filepath.Join(s.dir, tempPrefix+name)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp)
		return err
	}
	return syncDir(s.dir)
}

// close makes the saves that wait and gives the directory free.
func (s *dirStore) close() {
	s.mu.Lock()
	s.closed = true
	s.more.Signal()
	s.mu.Unlock()
	s.wait.Wait()
	_ = s.lock.Close()
}
