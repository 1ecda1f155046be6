//go:build unix

package daemon

import (
	"net"
	"os"
	"path/filepath"
)

// listenPrivate opens a Unix socket that nobody else can use, not even for the instant before its mode is set: it is made
// in a folder of its own beside the path, which only this user can enter, and moved.
func listenPrivate(path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // of a name that it has no more
	if err = os.Chmod(made, 0o600); err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return &movedListener{ln, path}, nil
}

// movedListener is a Unix socket that was moved: Close removes it where it is.
type movedListener struct {
	*net.UnixListener
	path string
}

func (l *movedListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *movedListener) Close() error {
	err := l.UnixListener.Close()
	if err == nil {
		_ = os.Remove(l.path)
	}
	return err
}
