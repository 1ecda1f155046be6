package directory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cepa/cert"
	"cepa/internal/plaincbor"
	"cepa/ipaddr"

	"github.com/fxamacker/cbor/v2"
)

// Errors that a caller can test for with errors.Is. Every error of a decoder here wraps one of them, or one of
// package cert.
var (
	// ErrMalformed: the bytes are not a document of this kind.
	ErrMalformed = errors.New("malformed")
	// ErrNotCanonical: the bytes mean something, but are not the only form in which it may be written.
	ErrNotCanonical = errors.New("not in canonical form")
	// ErrInvalid: a field has a value that is not allowed.
	ErrInvalid = errors.New("invalid")
	// ErrTooLarge: a document exceeds its bound.
	ErrTooLarge = errors.New("too large")
	// ErrExpired: the document was valid once.
	ErrExpired = errors.New("expired")
	// ErrFromTheFuture: the document was published later than the clock here can explain.
	ErrFromTheFuture = errors.New("from the future")
	// ErrSigners: the signatures hold, but are not of those who may sign this.
	ErrSigners = errors.New("not signed by those who may")
	// ErrDigest: the bytes are not those that the digest or length belongs to.
	ErrDigest = errors.New("wrong digest")
)

// Extensions are the fields of a document or record that this version does not know: CBOR by integer key. They are
// kept so that the document re-encodes to its own bytes.
type Extensions map[int64]cbor.RawMessage

// maxElements bounds arrays in CBOR. With the bound of the document it bounds what decoding may allocate.
const maxElements = 1 << 16

var (
	encoding = mustMode(cbor.CoreDetEncOptions().EncMode())
	decoding = mustMode(cbor.DecOptions{
		SimpleValues:      plaincbor.SimpleValues(),
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:   8,
		MaxArrayElements:  maxElements,
		MaxMapPairs:       256,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MapKeyByteString:  cbor.MapKeyByteStringForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		BinaryUnmarshaler: cbor.BinaryUnmarshalerNone,
		TextUnmarshaler:   cbor.TextUnmarshalerNone,
	}.DecMode())
)

// mustMode serves the two modes above, whose options are constants.
func mustMode[M any](mode M, err error) M {
	if err != nil {
		panic(err)
	}
	return mode
}

// encodeMap encodes a struct with integer keys, and ext beside its fields.
func encodeMap(v any, ext Extensions) ([]byte, error) {
	plain, err := encoding.Marshal(v)
	if err != nil || len(ext) == 0 {
		return plain, err
	}
	known := knownKeys(v)
	for _, key := range slices.Sorted(maps.Keys(ext)) {
		if slices.Contains(known, key) {
			return nil, fmt.Errorf("%w: an extension with the key of a field, %d", ErrInvalid, key)
		}
		if err := checkDeterministic(ext[key]); err != nil {
			return nil, fmt.Errorf("extension %d: %w", key, err)
		}
	}
	all := Extensions{}
	if err := decoding.Unmarshal(plain, &all); err != nil {
		return nil, err
	}
	maps.Copy(all, ext)
	return encoding.Marshal(all)
}

// decodeMap decodes what encodeMap writes into the struct that v points to, which must be zero, and returns the
// fields that the struct does not have. It refuses what encodeMap would not write.
func decodeMap(data []byte, v any) (Extensions, error) {
	if err := decoding.Unmarshal(data, v); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrMalformed, strings.TrimPrefix(err.Error(), "cbor: "))
	}
	again, err := encodeMap(v, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if bytes.Equal(again, data) {
		return nil, nil
	}
	var ext Extensions
	if err := decoding.Unmarshal(data, &ext); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrMalformed, strings.TrimPrefix(err.Error(), "cbor: "))
	}
	for _, key := range knownKeys(v) {
		delete(ext, key)
	}
	if again, err = encodeMap(v, ext); err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, ErrNotCanonical
	}
	return ext, nil
}

// checkDeterministic checks that data is one item in deterministic encoding, of whatever meaning.
func checkDeterministic(data []byte) error {
	var v any
	if err := decoding.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("%w: %s", ErrMalformed, strings.TrimPrefix(err.Error(), "cbor: "))
	}
	again, err := encoding.Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !bytes.Equal(again, data) {
		return ErrNotCanonical
	}
	return nil
}

// knownKeys returns the integer keys in the tags of a struct or a pointer to one.
func knownKeys(v any) []int64 {
	t := reflect.TypeOf(v)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	keys := make([]int64, 0, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("cbor"), ",")
		key, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			panic("directory: " + t.Name() + " has a field without an integer key")
		}
		keys = append(keys, key)
	}
	return keys
}

// latestMilli is the last millisecond of the year 9999: times up to there are safe to compute with.
const latestMilli = 253402300799_999

// milli returns t in the form of documents.
func milli(t time.Time) uint64 { return uint64(t.UnixMilli()) }

// readMilli reads a time of a document.
func readMilli(m uint64, what string) (time.Time, error) {
	if m == 0 || m > latestMilli {
		return time.Time{}, fmt.Errorf("%w %s: %d ms since 1970", ErrInvalid, what, m)
	}
	return time.UnixMilli(int64(m)).UTC(), nil
}

// checkMilli reports an error for a time that a document cannot carry.
func checkMilli(t time.Time, what string) error {
	if m := t.UnixMilli(); m <= 0 || m > latestMilli || !t.Equal(time.UnixMilli(m)) {
		return fmt.Errorf("%w %s: %v is not a whole millisecond between 1970 and 9999", ErrInvalid, what, t)
	}
	return nil
}

// addrBytes is the form of an address and port in documents: 4 or 16 bytes of address, port u16.
func addrBytes(a netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(a.Addr().AsSlice(), a.Port())
}

func readAddr(b []byte) (netip.AddrPort, error) {
	if len(b) != 6 && len(b) != 18 {
		return netip.AddrPort{}, fmt.Errorf("%w address: %d bytes, want 6 or 18", ErrMalformed, len(b))
	}
	host, _ := netip.AddrFromSlice(b[:len(b)-2])
	return netip.AddrPortFrom(host, binary.BigEndian.Uint16(b[len(b)-2:])), nil
}

// checkAddr checks an address at which a relay can be reached. Test networks may use addresses that are not public.
func checkAddr(a netip.AddrPort, test bool) error {
	host := a.Addr()
	switch {
	case !host.IsValid() || a.Port() == 0 || host.Is4In6() || host.Zone() != "" || host.IsUnspecified() || host.IsMulticast():
		return fmt.Errorf("%w address %s: not one that can be connected to", ErrInvalid, a)
	case !test && !ipaddr.IsPublic(host):
		return fmt.Errorf("%w address %s: not a public one, and this is no test network", ErrInvalid, a)
	}
	return nil
}

// maxAddresses bounds the addresses of one relay.
const maxAddresses = 8

// checkAddrs checks the addresses of a relay: at least one, at most maxAddresses, none twice.
func checkAddrs(addrs []netip.AddrPort, test bool) error {
	if len(addrs) == 0 || len(addrs) > maxAddresses {
		return fmt.Errorf("%w: %d addresses, want 1 to %d", ErrInvalid, len(addrs), maxAddresses)
	}
	for i, a := range addrs {
		if err := checkAddr(a, test); err != nil {
			return err
		}
		if slices.Contains(addrs[:i], a) {
			return fmt.Errorf("%w address %s: twice", ErrInvalid, a)
		}
	}
	return nil
}

func encodeAddrs(addrs []netip.AddrPort) [][]byte {
	out := make([][]byte, len(addrs))
	for i, a := range addrs {
		out[i] = addrBytes(a)
	}
	return out
}

func readAddrs(list [][]byte) ([]netip.AddrPort, error) {
	out := make([]netip.AddrPort, len(list))
	for i, b := range list {
		var err error
		if out[i], err = readAddr(b); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// checkText checks a text that will be shown to people: UTF-8, printable (no control characters and nothing that
// turns the direction of writing), at most limit bytes.
func checkText(s, what string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s: %w: %d bytes, at most %d", what, ErrTooLarge, len(s), limit)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%w %s: not printable text", ErrInvalid, what)
	}
	return nil
}

// CheckContact checks what an operator says of how to be reached: printable text of at most 512 bytes.
func CheckContact(s string) error { return checkText(s, "contact", maxContact) }

// CheckNickname checks a nickname: empty, or 1 to 19 of letters, digits and "-".
func CheckNickname(s string) error {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' || len(s) > 19 {
			return fmt.Errorf("%w nickname: want 1 to 19 letters, digits and hyphens", ErrInvalid)
		}
	}
	return nil
}

// remembered is a document with one signer that was found good, for all who get the same bytes.
type remembered[T any] struct {
	document    T
	from, until time.Time // of the signer's certificate
}

// openRemembered is open, which verifies and decodes a document at a time, for a network that may remember. What depends
// on the time beside the signer's certificate is for the caller to check, of what is returned too; a document that is
// returned is not to be modified.
func openRemembered[T any](sealed []byte, network *Network, now time.Time, kind cert.DocumentType, open func() (T, cert.Endorsement, error)) (T, error) {
	if network.memo == nil {
		d, _, err := open()
		return d, err
	}
	var failed error
	key := cert.MemoKey(kind.String(), network.ID[:], []byte{byte(b2i(network.Test))}, sealed)
	r := network.memo.Once(key, func() (any, int) {
		d, by, err := open()
		if failed = err; err != nil {
			return remembered[T]{}, 0
		}
		return remembered[T]{d, by.Certificate.From, by.Certificate.Until}, 3 * len(sealed)
	}).(remembered[T])
	if failed == nil && (now.Before(r.from) || !now.Before(r.until)) {
		r.document, _, failed = open() // which says what is wrong
	}
	return r.document, failed
}

// openOne opens a document with one signer and returns the signer's endorsement beside it.
func openOne(sealed []byte, network *Network, now time.Time, kind cert.DocumentType, maxSealed int) (cert.Document, cert.Endorsement, error) {
	if len(sealed) > maxSealed {
		return cert.Document{}, cert.Endorsement{}, fmt.Errorf("opening a %s: %w: %d bytes, at most %d", kind, ErrTooLarge, len(sealed), maxSealed)
	}
	doc, err := network.open(sealed, now, kind, maxSealed)
	if err != nil {
		return cert.Document{}, cert.Endorsement{}, err
	}
	return doc, doc.Endorsements[0], nil
}
