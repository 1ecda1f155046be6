package link

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/chacha20poly1305"

	"cepa/link/gcm"
)

// The record layer of TLS 1.3 (RFC 8446, sections 5 and 7.3). crypto/tls does the handshake; after HELLO this takes
// over with the application traffic secrets, which crypto/tls gives out for key logs, because it copies each byte twice
// on the way in and twice on the way out, and here none is: records are opened from what was read into what the loop
// gets, and sealed from what was sent into what is written.

// Content types, and the messages that may come after the handshake.
const (
	recordAlert       = 21
	recordHandshake   = 22
	recordData        = 23
	newSessionTicket  = 4
	keyUpdate         = 24
	alertCloseNotify  = 0
	maxUselessRecords = 16 // in a row that carry no data, as in crypto/tls
)

// suite is what a cipher suite means for records.
type suite struct {
	keySize int
	hash    func() hash.Hash
	aead    func(key []byte) (cipher.AEAD, error)
}

var suites = map[uint16]suite{
	tls.TLS_AES_128_GCM_SHA256:       {16, sha256.New, gcm.New},
	tls.TLS_AES_256_GCM_SHA384:       {32, sha512.New384, gcm.New},
	tls.TLS_CHACHA20_POLY1305_SHA256: {32, sha256.New, chacha20poly1305.New},
}

// traffic protects one direction.
type traffic struct {
	suite  suite
	secret []byte
	aead   cipher.AEAD
	iv     [12]byte
	nonce  [12]byte
	seq    uint64 // of the next record
}

func newTraffic(s suite, secret []byte, seq uint64) (*traffic, error) {
	t := &traffic{suite: s, secret: secret}
	if err := t.rekey(); err != nil {
		return nil, err
	}
	t.seq = seq
	return t, nil
}

// expand is HKDF-Expand-Label with an empty context.
func (t *traffic) expand(label string, size int) ([]byte, error) {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(append(append(info, byte(len(label))), label...), 0)
	return hkdf.Expand(t.suite.hash, t.secret, string(info), size)
}

func (t *traffic) rekey() error {
	key, err := t.expand("key", t.suite.keySize)
	if err != nil {
		return err
	}
	iv, err := t.expand("iv", len(t.iv))
	if err != nil {
		return err
	}
	copy(t.iv[:], iv)
	t.seq = 0
	t.aead, err = t.suite.aead(key)
	clear(key)
	return err
}

// update goes on to the next secret, as after a KeyUpdate.
func (t *traffic) update() error {
	next, err := t.expand("traffic upd", len(t.secret))
	if err != nil {
		return err
	}
	clear(t.secret)
	t.secret = next
	return t.rekey()
}

// next returns the nonce of the next record.
func (t *traffic) next() []byte {
	t.nonce = t.iv
	for i := range 8 {
		t.nonce[4+i] ^= byte(t.seq >> (56 - 8*i))
	}
	t.seq++
	return t.nonce[:]
}

// opener reads the records of the far end.
type opener struct {
	*traffic
	useless int
	rekeyed *atomic.Bool // the far end wants us to update our key too
	client  bool         // this end is TLS's client
}

// open decrypts a whole record (with its header) and appends its data, which may be none, to dst. dst has room for
// maxRecord more. The error is io.EOF when the far end says goodbye.
func (o *opener) open(dst, record []byte) ([]byte, error) {
	if record[0] != recordData || record[1] != 3 || record[2] != 3 {
		return dst, fmt.Errorf("%w: a record of type %d", ErrTLS, record[0])
	}
	plain, err := o.aead.Open(dst[len(dst):], o.next(), record[5:], record[:5])
	if err != nil {
		return dst, fmt.Errorf("%w: a record was altered on the way", ErrTLS)
	}
	end := len(plain) - 1
	for end >= 0 && plain[end] == 0 { // padding
		end--
	}
	if end < 0 || end > maxPlain {
		return dst, fmt.Errorf("%w: a record without a type, or too long", ErrTLS)
	}
	kind, plain := plain[end], plain[:end]
	if kind == recordData && end > 0 {
		o.useless = 0
		return dst[:len(dst)+end], nil
	}
	if o.useless++; o.useless > maxUselessRecords {
		return dst, fmt.Errorf("%w: too many records without data", ErrTLS)
	}
	switch kind {
	case recordData:
		return dst, nil
	case recordHandshake:
		return dst, o.message(plain)
	case recordAlert:
		if len(plain) == 2 && plain[1] == alertCloseNotify {
			return dst, io.EOF
		}
		return dst, fmt.Errorf("%w: the far end says %x", ErrTLS, plain)
	}
	return dst, fmt.Errorf("%w: content of type %d", ErrTLS, kind)
}

// message acts on a message after the handshake: a KeyUpdate, or tickets, which are not used.
func (o *opener) message(m []byte) error {
	switch {
	case len(m) == 5 && m[0] == keyUpdate && [3]byte(m[1:4]) == [3]byte{0, 0, 1} && m[4] <= 1:
		if m[4] == 1 {
			o.rekeyed.Store(true)
		}
		return o.update()
	case len(m) > 4 && m[0] == newSessionTicket && o.client:
		return nil
	}
	return fmt.Errorf("%w: an unexpected message", ErrTLS)
}

// sealer writes records.
type sealer struct {
	*traffic
	rekeyed atomic.Bool
	records atomic.Int64
}

// seal appends data as one record to dst. data has room for one byte more, which is lost; it is at most maxPlain.
func (s *sealer) seal(dst, data []byte, kind byte) []byte {
	n := len(data) + 1 + s.aead.Overhead()
	at := len(dst)
	dst = append(dst, recordData, 3, 3, byte(n>>8), byte(n))
	s.records.Add(1)
	return s.aead.Seal(dst, s.next(), append(data, kind), dst[at:at+5])
}

// sealAll appends data as full records to dst, after a KeyUpdate if one is due. The bytes of data stay as they are; it
// has room for one byte more.
func (s *sealer) sealAll(dst, data []byte) ([]byte, error) {
	if s.rekeyed.Swap(false) {
		m := [6]byte{keyUpdate, 0, 0, 1, 0}
		dst = s.seal(dst, m[:5], recordHandshake)
		if err := s.update(); err != nil {
			return dst, err
		}
	}
	for len(data) > 0 {
		n := min(len(data), maxPlain)
		after := data[: n+1 : n+1]
		kept := after[n]
		dst = s.seal(dst, data[:n:n+1], recordData)
		after[n] = kept
		data = data[n:]
	}
	return dst, nil
}

// goodbye appends a close_notify.
func (s *sealer) goodbye(dst []byte) []byte {
	m := [3]byte{1, alertCloseNotify}
	return s.seal(dst, m[:2], recordAlert)
}

// trafficSecrets collects the secrets of one session from what crypto/tls writes to a key log.
type trafficSecrets struct {
	log io.Writer // the key log proper; may be nil

	mu             sync.Mutex
	client, server []byte
}

func (k *trafficSecrets) Write(line []byte) (int, error) {
	f := bytes.Fields(line)
	if len(f) == 3 {
		k.mu.Lock()
		switch secret, err := hex.DecodeString(string(f[2])); {
		case err != nil:
		case string(f[0]) == "CLIENT_TRAFFIC_SECRET_0":
			k.client = secret
		case string(f[0]) == "SERVER_TRAFFIC_SECRET_0":
			k.server = secret
		}
		k.mu.Unlock()
	}
	if k.log == nil {
		return len(line), nil
	}
	return k.log.Write(line)
}

// in returns a copy of a configuration whose sessions give their secrets to k.
func (k *trafficSecrets) in(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.KeyLogWriter = k
	return c
}

var errNoSecrets = errors.New("crypto/tls gave no traffic secrets")

// takeOver returns the record layer of an established session, in which this end has written, and read, so many
// records since the handshake.
func (k *trafficSecrets) takeOver(c tls.ConnectionState, client bool, written, read uint64) (*opener, *sealer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := suites[c.CipherSuite]
	if !ok || k.client == nil || k.server == nil {
		return nil, nil, errNoSecrets
	}
	ours, theirs := k.server, k.client
	if client {
		ours, theirs = theirs, ours
	}
	in, err := newTraffic(s, theirs, read)
	if err != nil {
		return nil, nil, err
	}
	out, err := newTraffic(s, ours, written)
	if err != nil {
		return nil, nil, err
	}
	k.client, k.server = nil, nil
	seal := &sealer{traffic: out}
	return &opener{traffic: in, rekeyed: &seal.rekeyed, client: client}, seal, nil
}
