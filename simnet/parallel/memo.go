package parallel

import "sync"

// Memo implements cert.Memo: it keeps what it was given last, up to a bound, and forgets the oldest half of that when it
// is reached. It is safe for concurrent use.
type Memo struct {
	mu       sync.Mutex
	half     int // bytes
	size     int // of young
	young    map[[32]byte]entry
	old      map[[32]byte]entry
	made     int
	recalled int
}

type entry struct {
	value any
	size  int
}

// NewMemo makes a Memo for so many bytes.
func NewMemo(bytes int) *Memo {
	return &Memo{half: bytes / 2, young: make(map[[32]byte]entry)}
}

// Once implements cert.Memo. Two who ask for the same at once may both make it; one value stays.
func (m *Memo) Once(key [32]byte, make func() (value any, size int)) any {
	if e, ok := m.find(key); ok {
		return e.value
	}
	value, size := make()
	return m.keep(key, entry{value, size})
}

func (m *Memo) find(key [32]byte) (entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.young[key]
	if !ok {
		if e, ok = m.old[key]; ok {
			m.add(key, e)
		}
	}
	if ok {
		m.recalled++
	}
	return e, ok
}

func (m *Memo) keep(key [32]byte, e entry) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	if there, ok := m.young[key]; ok {
		return there.value
	}
	if e.size > 0 {
		m.add(key, e)
	}
	return e.value
}

func (m *Memo) add(key [32]byte, e entry) {
	if m.size += e.size; m.size > m.half && len(m.young) > 0 {
		m.old, m.young, m.size = m.young, make(map[[32]byte]entry), e.size
	}
	m.young[key] = e
}

// Count returns how often something was made, and how often it was found.
func (m *Memo) Count() (made, recalled int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.made, m.recalled
}
