package directory

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"cepa/cert"
)

// Bounds of the directory protocol.
const (
	MaxRequest = 512                   // bytes of a request, without its length
	MaxAnswer  = MaxConsensusBody      // bytes of the body of an answer
	maxGossip  = MaxRequest - (5 + 10) // bytes of a rumour in a request

	// MaxAuthorityRequest bounds requests of one authority to another, without their length: a document that all
	// authorities have signed must fit.
	MaxAuthorityRequest = 16 << 10
	maxPushed           = MaxAuthorityRequest - 16 // bytes of a document in a request

	requestHeader = 2
	answerHeader  = 5
)

// RequestKind says what a request asks for.
type RequestKind uint8

// The kinds of requests, and what the body of the answer is.
const (
	AskHead       RequestKind = 1 // the head of the newest consensus, sealed
	AskBody       RequestKind = 2 // the body of the consensus whose head has this Digest
	AskDescriptor RequestKind = 3 // the descriptor with this Digest, sealed
	AskSummary    RequestKind = 4 // a Summary of the descriptors held
	AskBucket     RequestKind = 5 // the digests of the descriptors held in Bucket: see AppendDigests
	Announce      RequestKind = 6 // nothing: it carries a sealed Rumour

	// AskDiff asks for the diff from the body of the consensus whose head has the digest Known to that of Digest;
	// AskNetworkFile for the text of a network file that replaces the one with this Serial.
	AskDiff        RequestKind = 7
	AskNetworkFile RequestKind = 8

	// Between authorities: see Authority.
	PushVote      RequestKind = 9  // nothing: it carries the sealed head of a vote
	AskVoteBody   RequestKind = 10 // the body of the vote whose head has this Digest
	PushSignature RequestKind = 11 // nothing: it carries the head of a consensus with some signatures

	AskEvidence RequestKind = 12 // what an authority knows of others that have broken the rules: see DecodeEvidence

	AskReach RequestKind = 17 // a Verdict: whether this relay is reached at Address

	AskSketch RequestKind = 16 // symbols of a sketch of the descriptors held, with this Salt, from First on

	AskBytes RequestKind = 15 // as many zeros as the sealed SpeedTicket that it carries says: see SpeedTests
)

// String returns the name of the kind in lower-case words.
func (k RequestKind) String() string {
	switch k {
	case AskHead:
		return "consensus head"
	case AskBody:
		return "consensus body"
	case AskDescriptor:
		return "descriptor"
	case AskSummary:
		return "summary"
	case AskBucket:
		return "bucket"
	case Announce:
		return "announcement"
	case AskDiff:
		return "consensus diff"
	case AskNetworkFile:
		return "network file"
	case PushVote:
		return "vote"
	case AskVoteBody:
		return "vote body"
	case PushSignature:
		return "signature"
	case AskEvidence:
		return "evidence"
	case AskBytes:
		return "speed test"
	case AskSketch:
		return "sketch"
	case AskReach:
		return "connecting back"
	}
	return fmt.Sprintf("request of kind %d", uint8(k))
}

// Request is what a node asks of a relay in a directory stream: one request a stream.
//
// On the stream it is a length u16 and a map of at most MaxRequest bytes:
//
//	1  kind    uint
//	2  digest  32 bytes, for AskBody, AskDescriptor, AskDiff and AskVoteBody only
//	3  bucket  uint below Buckets, for AskBucket only
//	4  rumour  bytes, for Announce only
//	5  document  bytes, for PushVote and PushSignature only, whose map may have MaxAuthorityRequest bytes
//	6  known   32 bytes, for AskDiff; and for AskHead, which is answered with nothing when it is the newest; or absent
//	7  serial  uint, for AskNetworkFile only
//	15 ticket  bytes, for AskBytes only
//	19 address 4 or 16 bytes of IP address and a port u16, for AskReach only
//	16 salt    uint, for AskSketch only; also 17 first, uint: 0, 32, 64, … 2,048, absent when 0; and 18 all, true or absent
type Request struct {
	Kind       RequestKind
	Digest     cert.Digest
	Bucket     int
	Rumour     []byte // sealed, at most MaxRequest-15 bytes
	Document   []byte // sealed, for other authorities
	Ticket     []byte // sealed, at most MaxSpeedTicket bytes
	Known      cert.Digest
	Serial     uint64
	Salt       uint64
	First      int
	Address    netip.AddrPort
	All        bool // not only the descriptors of relays that the consensus does not list
	Extensions Extensions
}

type wireRequest struct {
	Kind   RequestKind `cbor:"1,keyasint"`
	Digest []byte      `cbor:"2,keyasint,omitempty"`
	Bucket *uint8      `cbor:"3,keyasint,omitempty"`
	Rumour []byte      `cbor:"4,keyasint,omitempty"`
	Pushed []byte      `cbor:"5,keyasint,omitempty"`
	Known  []byte      `cbor:"6,keyasint,omitempty"`
	Serial uint64      `cbor:"7,keyasint,omitempty"`
	Ticket []byte      `cbor:"15,keyasint,omitempty"`
	Salt   *uint64     `cbor:"16,keyasint,omitempty"`
	First  uint16      `cbor:"17,keyasint,omitempty"`
	All    bool        `cbor:"18,keyasint,omitempty"`
	At     []byte      `cbor:"19,keyasint,omitempty"`
}

// AppendTo appends the request with its length, as it is written to the stream, to b.
func (r Request) AppendTo(b []byte) ([]byte, error) {
	w := wireRequest{Kind: r.Kind, Rumour: r.Rumour, Pushed: r.Document, Ticket: r.Ticket, Serial: r.Serial}
	if !r.Digest.IsZero() {
		w.Digest = r.Digest[:]
	}
	if !r.Known.IsZero() {
		w.Known = r.Known[:]
	}
	if r.Kind == AskBucket {
		bucket := uint8(r.Bucket)
		w.Bucket = &bucket
	}
	if r.Kind == AskSketch {
		w.Salt, w.First, w.All = &r.Salt, uint16(r.First), r.All
	}
	if r.Address.IsValid() {
		w.At = addrBytes(r.Address)
	}
	err := r.check()
	var body []byte
	if err == nil {
		body, err = encodeMap(w, r.Extensions)
	}
	if most := r.Kind.maxRequest(); err == nil && len(body) > most {
		err = fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(body), most)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding a directory request: %w", err)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...), nil
}

// check checks that the request has what its kind needs and nothing else. Kinds that this version does not know are
// errors: the answer is BadRequest.
func (r Request) check() error {
	var digest, bucket, rumour, pushed, ticket bool
	switch r.Kind {
	case AskHead, AskSummary, AskEvidence:
	case AskBody, AskDescriptor, AskVoteBody, AskDiff:
		digest = true
	case AskNetworkFile:
	case PushVote, PushSignature:
		pushed = true
	case AskBucket:
		bucket = true
	case Announce:
		rumour = true
	case AskBytes:
		ticket = true
	case AskReach:
	case AskSketch:
		if !isSketchStart(r.First) {
			return fmt.Errorf("%w: a %s from symbol %d on", ErrInvalid, r.Kind, r.First)
		}
	default:
		return fmt.Errorf("%w kind %d", ErrInvalid, uint8(r.Kind))
	}
	switch {
	case (r.Kind == AskReach) != r.Address.IsValid() || r.Address.Addr().Is4In6() || r.Address.Addr().Zone() != "":
		return fmt.Errorf("%w: a %s with the address %s", ErrInvalid, r.Kind, r.Address)
	case r.Kind != AskSketch && (r.Salt != 0 || r.First != 0 || r.All):
		return fmt.Errorf("%w: a %s with what a sketch has", ErrInvalid, r.Kind)
	case digest == r.Digest.IsZero():
		return fmt.Errorf("%w: a %s without its digest, or another with one", ErrInvalid, r.Kind)
	case (r.Kind == AskDiff) == r.Known.IsZero() && (r.Kind != AskHead || r.Known.IsZero()):
		return fmt.Errorf("%w: a %s without the digest that is known, or another with one", ErrInvalid, r.Kind)
	case (r.Kind == AskNetworkFile) == (r.Serial == 0) || r.Serial > maxSerial:
		return fmt.Errorf("%w: a %s with the serial %d", ErrInvalid, r.Kind, r.Serial)
	case r.Bucket < 0 || r.Bucket >= Buckets || !bucket && r.Bucket != 0:
		return fmt.Errorf("%w: a %s with the bucket %d", ErrInvalid, r.Kind, r.Bucket)
	case rumour == (len(r.Rumour) == 0) || len(r.Rumour) > maxGossip:
		return fmt.Errorf("%w: a %s with a rumour of %d bytes", ErrInvalid, r.Kind, len(r.Rumour))
	case pushed == (len(r.Document) == 0) || len(r.Document) > maxPushed:
		return fmt.Errorf("%w: a %s with a document of %d bytes", ErrInvalid, r.Kind, len(r.Document))
	case ticket == (len(r.Ticket) == 0) || len(r.Ticket) > MaxSpeedTicket:
		return fmt.Errorf("%w: a %s with a ticket of %d bytes", ErrInvalid, r.Kind, len(r.Ticket))
	}
	return nil
}

// ofAuthorities says whether a request is for an authority and from another.
func (k RequestKind) ofAuthorities() bool {
	return k == PushVote || k == AskVoteBody || k == PushSignature
}

// maxRequest is the longest map of a request of this kind.
func (k RequestKind) maxRequest() int {
	if k == PushVote || k == PushSignature {
		return MaxAuthorityRequest
	}
	return MaxRequest
}

// DecodeRequest decodes the map of a request, without its length.
func DecodeRequest(body []byte) (Request, error) {
	r, err := decodeRequest(body)
	if err != nil {
		return Request{}, fmt.Errorf("reading a directory request: %w", err)
	}
	return r, nil
}

func decodeRequest(body []byte) (r Request, err error) {
	if len(body) > MaxAuthorityRequest {
		return r, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(body), MaxAuthorityRequest)
	}
	var w wireRequest
	if r.Extensions, err = decodeMap(body, &w); err != nil {
		return r, err
	}
	if most := w.Kind.maxRequest(); len(body) > most {
		return r, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(body), most)
	}
	r.Kind, r.Rumour, r.Document, r.Ticket, r.Serial = w.Kind, w.Rumour, w.Pushed, w.Ticket, w.Serial
	for _, d := range []struct {
		from []byte
		to   *cert.Digest
	}{{w.Digest, &r.Digest}, {w.Known, &r.Known}} {
		if d.from == nil {
			continue
		}
		if *d.to, err = read32(d.from, "digest"); err != nil {
			return r, err
		}
		if d.to.IsZero() {
			return r, fmt.Errorf("%w digest: all zero", ErrInvalid)
		}
	}
	if w.At != nil {
		if r.Address, err = readAddr(w.At); err != nil {
			return r, err
		}
	}
	if (w.Salt != nil) != (r.Kind == AskSketch) {
		return r, fmt.Errorf("%w: a %s without its salt, or another with one", ErrInvalid, r.Kind)
	}
	if w.Salt != nil {
		r.Salt = *w.Salt
	}
	r.First, r.All = int(w.First), w.All
	if (w.Bucket != nil) != (r.Kind == AskBucket) {
		return r, fmt.Errorf("%w: a %s without its bucket, or another with one", ErrInvalid, r.Kind)
	}
	if w.Bucket != nil {
		r.Bucket = int(*w.Bucket)
	}
	return r, r.check()
}

// RequestReader reads one request from a stream as its bytes come. The zero value is ready for use, and takes what
// anybody may ask: at most MaxRequest bytes. It holds at most what a request may have.
type RequestReader struct {
	buffer []byte
	more   int // bytes that it takes beside MaxRequest
}

// NewRequestReader returns a reader of requests of at most limit bytes, without their length; at least MaxRequest and
// at most MaxAuthorityRequest.
func NewRequestReader(limit int) *RequestReader {
	return &RequestReader{more: min(max(limit, MaxRequest), MaxAuthorityRequest) - MaxRequest}
}

// Read takes the next bytes of the stream. Done is true when the request is whole. Any error, bytes behind the
// request among them, is final: the answer is BadRequest.
func (r *RequestReader) Read(p []byte) (request Request, done bool, err error) {
	most := MaxRequest + r.more
	if len(r.buffer)+len(p) > requestHeader+most {
		return Request{}, false, fmt.Errorf("reading a directory request: %w: more than %d bytes", ErrTooLarge, most)
	}
	r.buffer = append(r.buffer, p...)
	if len(r.buffer) < requestHeader {
		return Request{}, false, nil
	}
	length := int(binary.BigEndian.Uint16(r.buffer))
	have := len(r.buffer) - requestHeader
	switch {
	case length > most:
		return Request{}, false, fmt.Errorf("reading a directory request: %w: %d bytes, at most %d", ErrTooLarge, length, most)
	case have > length:
		return Request{}, false, fmt.Errorf("reading a directory request: %w: %d bytes behind it", ErrMalformed, have-length)
	case have < length:
		return Request{}, false, nil
	}
	request, err = DecodeRequest(r.buffer[requestHeader:])
	return request, err == nil, err
}

// Status is the outcome of a request.
type Status uint8

// The statuses. Only StatusOK has a body.
const (
	StatusOK         Status = 0
	StatusNotFound   Status = 1 // no document with this digest is held
	StatusBadRequest Status = 2 // the request does not parse or has an unknown kind
	StatusBusy       Status = 3 // over the budget: ask again later, or elsewhere
	StatusNotYet     Status = 4 // there is no consensus yet
	StatusRefused    Status = 5 // the announcement is not taken
)

// String returns the name of the status in lower-case words.
func (s Status) String() string {
	switch s {
	case StatusOK:
		return "ok"
	case StatusNotFound:
		return "not found"
	case StatusBadRequest:
		return "bad request"
	case StatusBusy:
		return "busy"
	case StatusNotYet:
		return "not yet"
	case StatusRefused:
		return "refused"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// AppendAnswer appends the answer to a request, as it is written to the stream, to b:
//
//	status  u8
//	length  u32   at most MaxAnswer; 0 unless the status is ok
//	body
//
// It panics when the body is too large or belongs to another status than StatusOK, which is a mistake in the
// program: whoever holds documents bounds them.
func AppendAnswer(b []byte, status Status, body []byte) []byte {
	if len(body) > MaxAnswer || status != StatusOK && len(body) > 0 {
		panic(fmt.Sprintf("directory: an answer %q with %d bytes", status, len(body)))
	}
	b = append(b, byte(status))
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

// AnswerReader reads one answer from a stream as its bytes come. It allocates for what has come, not for what was
// announced.
type AnswerReader struct {
	limit  int
	header [answerHeader]byte
	have   int // bytes of header
	body   []byte
}

// NewAnswerReader returns a reader that refuses a body of more than limit bytes; more than MaxAnswer is never
// accepted.
func NewAnswerReader(limit int) *AnswerReader {
	if limit != anySize {
		limit = min(limit, MaxAnswer)
	}
	return &AnswerReader{limit: limit}
}

// Read takes the next bytes of the stream; it does not keep p. Done is true when the answer is whole: see Status and
// Body. Any error, bytes behind the answer among them, is final.
func (r *AnswerReader) Read(p []byte) (done bool, err error) {
	if r.have < answerHeader {
		n := copy(r.header[r.have:], p)
		r.have += n
		p = p[n:]
		if r.have < answerHeader {
			return false, nil
		}
	}
	length := r.length()
	switch {
	case length > uint64(max(r.limit, 0)):
		return false, fmt.Errorf("reading a directory answer: %w: %d bytes, at most %d", ErrTooLarge, length, r.limit)
	case r.Status() != StatusOK && length > 0:
		return false, fmt.Errorf("reading a directory answer: %w: %q with %d bytes", ErrMalformed, r.Status(), length)
	case uint64(len(r.body)+len(p)) > length:
		return false, fmt.Errorf("reading a directory answer: %w: bytes behind it", ErrMalformed)
	}
	r.body = append(r.body, p...)
	return uint64(len(r.body)) == length, nil
}

func (r *AnswerReader) length() uint64 { return uint64(binary.BigEndian.Uint32(r.header[1:])) }

// Status returns the status; it means something once Read has returned done.
func (r *AnswerReader) Status() Status { return Status(r.header[0]) }

// Body returns the body that has come so far. It is not a copy, and is complete once Read has returned done.
func (r *AnswerReader) Body() []byte { return r.body }

// Progress returns how many bytes of the body have come, and how many there will be: 0 and 0 as long as that is not
// known.
func (r *AnswerReader) Progress() (have, total int) {
	if r.have < answerHeader {
		return 0, 0
	}
	return len(r.body), int(min(r.length(), MaxAnswer))
}
