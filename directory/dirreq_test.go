package directory

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"cepa/cert"
)

func testRequests() []Request {
	return []Request{
		{Kind: AskHead},
		{Kind: AskBody, Digest: cert.Digest{1}},
		{Kind: AskDescriptor, Digest: cert.Digest{31: 1}},
		{Kind: AskSummary},
		{Kind: AskBucket, Bucket: 0},
		{Kind: AskBucket, Bucket: Buckets - 1},
		{Kind: Announce, Rumour: make([]byte, maxGossip)},
		{Kind: AskBytes, Ticket: make([]byte, MaxSpeedTicket)},
		{Kind: AskSketch, Salt: 1 << 63},
		{Kind: AskSketch, First: 2048, All: true},
		{Kind: AskReach, Address: netip.MustParseAddrPort("192.0.2.7:9001")},
		{Kind: AskReach, Address: netip.MustParseAddrPort("[2001:db8::7]:1")},
		{Kind: AskHead, Extensions: Extensions{99: {0x01}}},
	}
}

func TestRequestComesBackByteByByte(t *testing.T) {
	t.Parallel()
	for _, want := range testRequests() {
		wire := must[[]byte](t)(want.AppendTo(nil))
		var reader RequestReader
		for i := range wire {
			got, done, err := reader.Read(wire[i : i+1])
			if err != nil || done != (i == len(wire)-1) {
				t.Fatalf("%s: byte %d of %d: done %v, %v", want.Kind, i, len(wire), done, err)
			}
			if done && (got.Kind != want.Kind || got.Digest != want.Digest || got.Bucket != want.Bucket || got.Salt != want.Salt || got.First != want.First || got.All != want.All || got.Address != want.Address || !bytes.Equal(got.Rumour, want.Rumour) || !bytes.Equal(got.Ticket, want.Ticket) || len(got.Extensions) != len(want.Extensions)) {
				t.Errorf("came back as %+v instead of %+v", got, want)
			}
		}
	}
}

func TestRequestRefused(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]Request{
		"no kind":              {},
		"an unknown kind":      {Kind: 77},
		"a body of what":       {Kind: AskBody},
		"a head with a digest": {Kind: AskHead, Digest: cert.Digest{1}},
		"a head with a bucket": {Kind: AskHead, Bucket: 1},
		"a bucket too high":    {Kind: AskBucket, Bucket: Buckets},
		"a bucket too low":     {Kind: AskBucket, Bucket: -1},
		"no rumour":            {Kind: Announce},
		"a large rumour":       {Kind: Announce, Rumour: make([]byte, maxGossip+1)},
		"a rumour for nothing": {Kind: AskHead, Rumour: []byte{1}},
		"no ticket":            {Kind: AskBytes},
		"a large ticket":       {Kind: AskBytes, Ticket: make([]byte, MaxSpeedTicket+1)},
		"a ticket for nothing": {Kind: AskHead, Ticket: []byte{1}},
		"no address":           {Kind: AskReach},
		"an address for what":  {Kind: AskHead, Address: netip.MustParseAddrPort("192.0.2.7:9001")},
		"a mapped address":     {Kind: AskReach, Address: netip.MustParseAddrPort("[::ffff:192.0.2.7]:9001")},
		"a large extension":    {Kind: AskHead, Extensions: Extensions{9: append([]byte{0x59, 2, 0}, make([]byte, 512)...)}},
	} {
		if _, err := r.AppendTo(nil); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("encoding %s: %v", name, err)
		}
	}
	for _, tt := range []struct {
		name string
		wire []byte
		want error
	}{
		{"too long", []byte{2, 1}, ErrTooLarge},
		{"bytes behind", []byte{0, 3, 0xa1, 1, 1, 0}, ErrMalformed},
		{"nothing", []byte{0, 0}, ErrMalformed},
		{"more than a request may have", make([]byte, 2+MaxRequest+1), ErrTooLarge},
		{"kind 7", []byte{0, 3, 0xa1, 1, 7}, ErrInvalid},
		{"a bucket without number", []byte{0, 3, 0xa1, 1, 5}, ErrInvalid},
		{"a bucket for a head", []byte{0, 5, 0xa2, 1, 1, 3, 0}, ErrInvalid},
		{"an empty digest", []byte{0, 5, 0xa2, 1, 1, 2, 0x40}, ErrNotCanonical},
	} {
		var reader RequestReader
		if _, done, err := reader.Read(tt.wire); !errors.Is(err, tt.want) || done {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestAnswerComesBackInPieces(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("a document "), 100)
	wire := AppendAnswer(nil, StatusOK, body)
	for _, size := range []int{1, 2, 5, 6, 7, 1000, len(wire)} {
		r := NewAnswerReader(len(body))
		for piece := range slices.Chunk(wire, size) {
			done, err := r.Read(piece)
			have, total := r.Progress()
			if err != nil || done != (have == len(body)) || total > len(body) {
				t.Fatalf("pieces of %d: done %v with %d of %d, %v", size, done, have, total, err)
			}
		}
		if r.Status() != StatusOK || !bytes.Equal(r.Body(), body) {
			t.Errorf("pieces of %d: %v, %d bytes", size, r.Status(), len(r.Body()))
		}
	}
	for _, status := range []Status{StatusNotFound, StatusBadRequest, StatusBusy, StatusNotYet, StatusRefused, 99} {
		r := NewAnswerReader(0)
		if done, err := r.Read(AppendAnswer(nil, status, nil)); !done || err != nil || r.Status() != status {
			t.Errorf("%v: done %v, %v", status, done, err)
		}
	}
}

func TestAnswerRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		limit int
		wire  []byte
		want  error
	}{
		{"above the limit", 9, AppendAnswer(nil, StatusOK, make([]byte, 10)), ErrTooLarge},
		{"above every limit", 1 << 30, []byte{0, 0, 0x80, 0, 1}, ErrTooLarge},
		{"bytes behind", 100, append(AppendAnswer(nil, StatusOK, []byte("x")), 0), ErrMalformed},
		{"bytes behind a refusal", 100, append(AppendAnswer(nil, StatusBusy, nil), 0), ErrMalformed},
		{"a body with a refusal", 100, []byte{3, 0, 0, 0, 1}, ErrMalformed},
	} {
		if done, err := NewAnswerReader(tt.limit).Read(tt.wire); !errors.Is(err, tt.want) || done {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	// An announced length costs nothing before the bytes come.
	r := NewAnswerReader(MaxAnswer)
	if _, err := r.Read([]byte{0, 0, 0x80, 0, 0, 'x'}); err != nil || cap(r.Body()) > 1024 {
		t.Errorf("allocated %d bytes for 1, %v", cap(r.Body()), err)
	}
}

func TestReconciliationFindsWhatDiffers(t *testing.T) {
	t.Parallel()
	var ours []cert.Digest
	for i := range 1000 {
		ours = append(ours, cert.DigestOf(cert.DescriptorDocument, testID, []byte{byte(i), byte(i >> 8)}))
	}
	slices.SortFunc(ours, cert.Digest.Compare)
	theirs := slices.Delete(slices.Clone(ours), 500, 501)
	missing := ours[500]
	a, b := SummaryOf(ours), SummaryOf(theirs)
	wire := a.AppendTo(nil)
	back := must[Summary](t)(DecodeSummary(wire))
	if len(wire) != SummarySize || back != a {
		t.Error("a summary does not come back")
	}
	differing := a.Differing(&b)
	if !slices.Equal(differing, []int{BucketOf(missing)}) || a.Differing(&a) != nil {
		t.Errorf("buckets %v differ, want %d", differing, BucketOf(missing))
	}
	bucket := differing[0]
	mine := must[[]cert.Digest](t)(DecodeDigests(AppendDigests(nil, ours, bucket, maxBucketDigests), bucket))
	other := must[[]cert.Digest](t)(DecodeDigests(AppendDigests(nil, theirs, bucket, maxBucketDigests), bucket))
	if len(mine) != len(other)+1 || !slices.Contains(mine, missing) || slices.Contains(other, missing) {
		t.Error("the buckets do not show what is missing")
	}
	total := 0
	for bucket := range Buckets {
		total += len(AppendDigests(nil, ours, bucket, maxBucketDigests)) / 32
	}
	if total != len(ours) {
		t.Errorf("the buckets hold %d digests of %d", total, len(ours))
	}
	swapped := AppendDigests(nil, ours, bucket, maxBucketDigests)
	copy(swapped[32:], swapped[:32])
	for name, wrong := range map[string][]byte{"twice the same": swapped, "half a digest": swapped[:16], "of another bucket": AppendDigests(nil, ours, (bucket+1)%Buckets, maxBucketDigests)} {
		if _, err := DecodeDigests(wrong, bucket); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := DecodeSummary(wire[1:]); !errors.Is(err, ErrMalformed) {
		t.Errorf("a short summary: %v", err)
	}
}
