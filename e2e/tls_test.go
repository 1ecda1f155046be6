//go:build linux

package e2e

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/cryptobyte"
)

// keyLog is a file in the format of SSLKEYLOGFILE: label and client random to secret.
type keyLog map[string][]byte

func parseKeyLog(text []byte) (keyLog, error) {
	log := make(keyLog)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("a line of the key log is %q", line)
		}
		secret, err := hex.DecodeString(f[2])
		if err != nil {
			return nil, err
		}
		log[f[0]+" "+f[1]] = secret
	}
	return log, nil
}

// Content types of RFC 8446, section 5.1.
const (
	recordCCS         = 20
	recordAlert       = 21
	recordHandshake   = 22
	recordApplication = 23
)

// record is one TLS record; after decryption typ is the inner type.
type record struct {
	typ    byte
	header []byte
	body   []byte
}

// records cuts a stream; what is after the last whole record is dropped, its length returned.
func records(b []byte) (list []record, rest int, err error) {
	for len(b) >= 5 {
		n := int(binary.BigEndian.Uint16(b[3:]))
		if b[0] < recordCCS || b[0] > recordApplication || b[1] != 3 || n > 16384+256 {
			return nil, 0, fmt.Errorf("no TLS record: %x", b[:5])
		}
		if len(b) < 5+n {
			break
		}
		list = append(list, record{b[0], b[:5], b[5 : 5+n]})
		b = b[5+n:]
	}
	return list, len(b), nil
}

// hello is what the tests look at in a ClientHello or ServerHello.
type helloMessage struct {
	random     []byte
	session    []byte
	suites     []uint16
	extensions map[uint16][]byte
}

// Extensions of RFC 8446, section 4.2, and others.
const (
	extServerName    = 0
	extGroups        = 10
	extALPN          = 16
	extPreSharedKey  = 41
	extEarlyData     = 42
	extVersions      = 43
	extKeyShare      = 51
	groupMLKEM       = 0x11ec // X25519MLKEM768
	versionTLS13     = 0x0304
	messageFinished  = 20
	messageServerHi  = 2
	messageClientHi  = 1
	alertCloseNotify = 0
)

func parseHello(b []byte, want byte) (h helloMessage, err error) {
	s := cryptobyte.String(b)
	var typ uint8
	var version uint16
	var body, session, extensions cryptobyte.String
	bad := fmt.Errorf("a handshake message of %d bytes is no hello of type %d", len(b), want)
	if !s.ReadUint8(&typ) || typ != want || !s.ReadUint24LengthPrefixed(&body) || !body.ReadUint16(&version) ||
		!body.ReadBytes(&h.random, 32) || !body.ReadUint8LengthPrefixed(&session) {
		return h, bad
	}
	h.session = session
	if want == messageClientHi {
		var suites, compression cryptobyte.String
		if !body.ReadUint16LengthPrefixed(&suites) || !body.ReadUint8LengthPrefixed(&compression) {
			return h, bad
		}
		for !suites.Empty() {
			var v uint16
			if !suites.ReadUint16(&v) {
				return h, bad
			}
			h.suites = append(h.suites, v)
		}
	} else {
		var suite uint16
		var compression uint8
		if !body.ReadUint16(&suite) || !body.ReadUint8(&compression) {
			return h, bad
		}
		h.suites = []uint16{suite}
	}
	if !body.ReadUint16LengthPrefixed(&extensions) || !body.Empty() {
		return h, bad
	}
	h.extensions = make(map[uint16][]byte)
	for !extensions.Empty() {
		var typ uint16
		var value cryptobyte.String
		if !extensions.ReadUint16(&typ) || !extensions.ReadUint16LengthPrefixed(&value) {
			return h, bad
		}
		h.extensions[typ] = value
	}
	return h, nil
}

// opener decrypts one direction of a TLS 1.3 connection under one secret.
type opener struct {
	aead cipher.AEAD
	iv   []byte
	seq  uint64
}

func newOpener(suite uint16, secret []byte) (*opener, error) {
	if secret == nil {
		return nil, errors.New("the key log has no secret for the connection")
	}
	newHash, keyLen := func() hash.Hash { return sha256.New() }, 16
	switch suite {
	case 0x1301:
	case 0x1302:
		newHash, keyLen = func() hash.Hash { return sha512.New384() }, 32
	case 0x1303:
		keyLen = 32
	default:
		return nil, fmt.Errorf("the cipher suite %#04x is none of TLS 1.3", suite)
	}
	expand := func(label string, n int) ([]byte, error) { // HKDF-Expand-Label, RFC 8446 section 7.1
		label = "tls13 " + label
		info := binary.BigEndian.AppendUint16(nil, uint16(n))
		info = append(append(info, byte(len(label))), label...)
		return hkdf.Expand(newHash, secret, string(append(info, 0)), n)
	}
	key, err := expand("key", keyLen)
	if err != nil {
		return nil, err
	}
	o := &opener{}
	if o.iv, err = expand("iv", 12); err != nil {
		return nil, err
	}
	if suite == 0x1303 {
		o.aead, err = chacha20poly1305.New(key)
		return o, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	o.aead, err = cipher.NewGCM(block)
	return o, err
}

// open decrypts the next record.
func (o *opener) open(r record) (record, error) {
	nonce := bytes.Clone(o.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(o.seq >> (56 - 8*i))
	}
	plain, err := o.aead.Open(nil, nonce, r.body, r.header)
	if err != nil {
		return r, fmt.Errorf("record %d does not decrypt: %w", o.seq, err)
	}
	o.seq++
	plain = bytes.TrimRight(plain, "\x00")
	if len(plain) == 0 {
		return r, errors.New("a record without a type")
	}
	return record{plain[len(plain)-1], nil, plain[:len(plain)-1]}, nil
}

// session is a captured TLS 1.3 connection in the clear.
type session struct {
	client, server     helloMessage
	toServer, toClient []record // after the handshake
}

// decrypt checks that a connection speaks TLS 1.3 from its first byte and decrypts it.
func (log keyLog) decrypt(c *conversation) (*session, error) {
	up, _, err := records(c.toServer)
	if err != nil {
		return nil, fmt.Errorf("towards the server: %w", err)
	}
	down, _, err := records(c.toClient)
	if err != nil {
		return nil, fmt.Errorf("towards the client: %w", err)
	}
	if len(up) == 0 || len(down) == 0 || up[0].typ != recordHandshake || down[0].typ != recordHandshake {
		return nil, errors.New("it does not begin with a TLS handshake")
	}
	s := &session{}
	if s.client, err = parseHello(up[0].body, messageClientHi); err != nil {
		return nil, err
	}
	if s.server, err = parseHello(down[0].body, messageServerHi); err != nil {
		return nil, err
	}
	if s.toServer, err = log.clear(up[1:], s, "CLIENT"); err != nil {
		return nil, fmt.Errorf("towards the server: %w", err)
	}
	if s.toClient, err = log.clear(down[1:], s, "SERVER"); err != nil {
		return nil, fmt.Errorf("towards the client: %w", err)
	}
	return s, nil
}

// clear decrypts what one side sent after its hello, and returns what came after its Finished.
func (log keyLog) clear(list []record, s *session, side string) (after []record, err error) {
	suite, random := s.server.suites[0], hex.EncodeToString(s.client.random)
	o, err := newOpener(suite, log[side+"_HANDSHAKE_TRAFFIC_SECRET "+random])
	if err != nil {
		return nil, err
	}
	var handshake []byte
	finished := false
	for _, r := range list {
		if r.typ == recordCCS && len(r.body) == 1 && !finished {
			continue // the one that RFC 8446 allows for middleboxes
		}
		if r.typ != recordApplication {
			return nil, fmt.Errorf("a record of type %d in the clear", r.typ)
		}
		if r, err = o.open(r); err != nil {
			return nil, err
		}
		if finished {
			after = append(after, r)
			continue
		}
		if r.typ != recordHandshake {
			return nil, fmt.Errorf("a record of type %d within the handshake", r.typ)
		}
		handshake = append(handshake, r.body...)
		for len(handshake) >= 4 {
			n := 4 + int(handshake[1])<<16 + int(handshake[2])<<8 + int(handshake[3])
			if len(handshake) < n {
				break
			}
			finished = handshake[0] == messageFinished
			handshake = handshake[n:]
		}
		if finished {
			if len(handshake) > 0 {
				return nil, errors.New("handshake bytes behind Finished")
			}
			if o, err = newOpener(suite, log[side+"_TRAFFIC_SECRET_0 "+random]); err != nil {
				return nil, err
			}
		}
	}
	if !finished {
		return nil, errors.New("the handshake was not finished")
	}
	return after, nil
}
