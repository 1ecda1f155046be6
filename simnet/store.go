package simnet

import (
	"io/fs"
	"slices"
	"time"

	"cepa/cert"
)

// disk is what a host keeps.
type disk struct {
	saved  map[string][]byte
	saving ring[save] // the first is being written
}

type save struct {
	name string
	data []byte
	err  error
	done func(error)
}

// crash loses what was not written.
func (d *disk) crash() {
	d.saving.clear()
}

// store implements env.Store for the process on a host.
type store struct{ h *Host }

// Load gives what was last saved, also when it is not yet on the disk.
func (s store) Load(name string) ([]byte, error) {
	d := &s.h.disk
	for i := d.saving.n - 1; i >= 0; i-- {
		if v := d.saving.at(i); v.name == name && v.err == nil {
			return slices.Clone(v.data), nil
		}
	}
	data, ok := d.saved[name]
	if !ok {
		return nil, &fs.PathError{Op: "load", Path: name, Err: fs.ErrNotExist}
	}
	return slices.Clone(data), nil
}

func (s store) Save(name string, data []byte, done func(error)) {
	h, d := s.h, &s.h.disk
	v := save{name: name, data: h.w.copyOf(data), done: done}
	if !validName(name) {
		v.err = &fs.PathError{Op: "save", Path: name, Err: fs.ErrInvalid}
	}
	h.w.trace.data(h.w, h, KindSave, uint64(len(name)), data)
	if d.saving.push(v); d.saving.n == 1 {
		h.write()
	}
}

// write writes the first of what waits for the disk, and then the others.
func (h *Host) write() {
	d := &h.disk
	h.w.after(h, h.spec.Disk, KindSaved, func() {
		v := d.saving.pop()
		if d.saving.n > 0 {
			h.write()
		}
		if v.err == nil {
			d.saved[v.name] = v.data
		}
		if v.done != nil {
			v.done(v.err)
		}
	})
}

// shared is the size from which a blob that is the same on several disks is kept once: a consensus, mostly.
const shared = 4 << 10

// copyOf is a copy of data, or one that was made before. It is not modified.
func (w *World) copyOf(data []byte) []byte {
	if w.memo == nil || len(data) < shared {
		return slices.Clone(data)
	}
	return w.memo.Once(cert.MemoKey("blob", data), func() (any, int) { return slices.Clone(data), len(data) }).([]byte)
}

func validName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return len(name) >= 1 && len(name) <= 64 && name[0] != '.' && name[len(name)-1] != '.'
}

// Blob is what is on the host's disk under a name, or nil.
func (h *Host) Blob(name string) []byte { return slices.Clone(h.disk.saved[name]) }

// Flush waits until the host's disk has written what was saved.
func (w *World) Flush() {
	for _, h := range w.hosts {
		for h.disk.saving.n > 0 && h.alive {
			w.Run(max(time.Millisecond, h.spec.Disk))
		}
	}
}
