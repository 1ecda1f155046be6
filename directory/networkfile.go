package directory

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"cepa/cert"

	"github.com/pelletier/go-toml/v2"
)

// createdLayout is the form of times in network files.
const createdLayout = "2006-01-02T15:04:05.000Z"

// tomlContact and tomlNetwork are the text of a network file.
type tomlContact struct {
	Identity  cert.Identity    `toml:"identity"`
	Addresses []netip.AddrPort `toml:"addresses"`
}

type tomlNetwork struct {
	Name       string         `toml:"name"`
	ID         cert.NetworkID `toml:"id"`
	Serial     uint64         `toml:"serial"`
	Created    string         `toml:"created"`
	Quorum     int            `toml:"quorum"`
	Test       bool           `toml:"test"`
	Echo       string         `toml:"echo"`
	Authority  []tomlContact  `toml:"authority"`
	Bootstrap  []tomlContact  `toml:"bootstrap"`
	Parameters Parameters     `toml:"parameters"`
	Signature  struct {
		Data string `toml:"data"`
	} `toml:"signature"`
}

// networkKeys are the keys that a network file can have, for suggestions.
var networkKeys = []string{"name", "id", "serial", "created", "quorum", "test", "echo", "authority", "bootstrap", "parameters",
	"signature", "identity", "addresses", "data"}

// ParseNetworkFile parses and verifies the text of a network file. Unknown keys are errors that name the nearest
// known one. It refuses a file in which two halves of the authorities could sign different consensuses, and one that
// is not signed by a quorum of its own authorities: so it has not been altered since. That these authorities are to
// be trusted nobody but the person who chose the file can say; for a file that replaces another see Replaces.
func ParseNetworkFile(text []byte) (*Network, error) {
	n, err := parseNetworkFile(text, false)
	if err != nil {
		return nil, fmt.Errorf("reading a network file: %w", err)
	}
	return n, nil
}

// parseNetworkFile parses a file; a draft may have too few signatures.
func parseNetworkFile(text []byte, draft bool) (*Network, error) {
	if len(text) > MaxNetworkFile {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(text), MaxNetworkFile)
	}
	var file tomlNetwork
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&file); err != nil {
		return nil, explainTOML(err)
	}
	created, err := time.Parse(createdLayout, file.Created)
	if err != nil {
		return nil, fmt.Errorf("%w created %q: want a time like %q", ErrInvalid, file.Created, createdLayout)
	}
	n := &Network{
		Name:        file.Name,
		ID:          file.ID,
		Serial:      file.Serial,
		Created:     created,
		Authorities: contacts(file.Authority),
		Quorum:      file.Quorum,
		Bootstrap:   contacts(file.Bootstrap),
		Parameters:  file.Parameters,
		Test:        file.Test,
		Echo:        file.Echo,
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	body, err := n.body()
	if err != nil {
		return nil, err
	}
	compact := strings.Join(strings.Fields(file.Signature.Data), "")
	if draft && compact == "" {
		return n, nil
	}
	detached, err := base64.StdEncoding.Strict().DecodeString(compact)
	if err != nil || compact == "" {
		return nil, fmt.Errorf("%w signature: not base64", ErrMalformed)
	}
	verify := n.verify
	if draft {
		verify = n.verifySignatures
	}
	if err := verify(cert.Attach(detached, body)); err != nil {
		if errors.Is(err, cert.ErrSignature) {
			return nil, fmt.Errorf("%w; has the file been altered?", err)
		}
		return nil, err
	}
	return n, nil
}

func contacts(list []tomlContact) []Contact {
	out := make([]Contact, len(list))
	for i, c := range list {
		out[i] = Contact(c)
	}
	return out
}

// explainTOML turns an error of the TOML library into one line that says where.
func explainTOML(err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
		first := strict.Errors[0]
		row, _ := first.Position()
		key := first.Key()
		if len(key) == 0 {
			return fmt.Errorf("%w: line %d: unknown key", ErrInvalid, row)
		}
		return fmt.Errorf("%w: line %d: unknown key %q%s", ErrInvalid, row, strings.Join(key, "."),
			suggestion(key[len(key)-1], networkKeys))
	}
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, column := decode.Position()
		return fmt.Errorf("%w: line %d, column %d: %s", ErrMalformed, row, column, strings.TrimPrefix(decode.Error(), "toml: "))
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}

// AppendTOML appends the text of the network file, which ParseNetworkFile reads, to b. Comments, spaces and the
// order of keys are not covered by the signature; everything else is. It fails when fewer than a quorum of the file's
// own authorities have signed it.
func (n *Network) AppendTOML(b []byte) ([]byte, error) {
	if err := n.Complete(nil); err != nil {
		return nil, fmt.Errorf("writing a network file: %w", err)
	}
	return n.AppendDraft(b)
}

// AppendDraft appends the text of a network file that may have too few signatures, which ParseNetworkDraft reads.
func (n *Network) AppendDraft(b []byte) ([]byte, error) {
	detached, err := n.detached()
	if err != nil {
		return nil, fmt.Errorf("writing a network file: %w", err)
	}
	w := func(format string, args ...any) { b = fmt.Appendf(b, format, args...) }
	w("# The network file of %s.\n", n.Name)
	w("# It names the authorities whose consensus clients and relays of this network believe, and is signed by them:\n")
	w("# do not edit it, and take it only from somebody whom you trust.\n\n")
	w("name = %s\n", quoteTOML(n.Name))
	w("id = %q\n", n.ID.String())
	w("serial = %d\n", n.Serial)
	w("created = %q\n", n.Created.UTC().Format(createdLayout))
	w("quorum = %d # of %d authorities must sign a consensus\n", n.Quorum, len(n.Authorities))
	if n.Test {
		w("test = true # private addresses are allowed, and exits reach them\n")
	}
	if n.Echo != "" {
		w("echo = %s # answers with the address of who asks\n", quoteTOML(n.Echo))
	}
	appendContacts(w, "authority", n.Authorities)
	appendContacts(w, "bootstrap", n.Bootstrap)
	if len(n.Parameters) > 0 {
		w("\n[parameters]\n")
	}
	for _, name := range slices.Sorted(maps.Keys(n.Parameters)) {
		info, _ := name.Info()
		w("%s = %d # %s\n", name, n.Parameters[name], info.Doc)
	}
	w("\n[signature]\ndata = \"\"\"\n")
	for line := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(detached)), 76) {
		w("%s\n", line)
	}
	w("\"\"\"\n")
	return b, nil
}

// detached are the signatures apart from what they sign; nothing when there are none.
func (n *Network) detached() ([]byte, error) {
	if len(n.endorsements) == 0 {
		return nil, nil
	}
	body, err := n.body()
	if err != nil {
		return nil, err
	}
	sealed, err := cert.Join(cert.NetworkDocument, body, n.endorsements...)
	if err != nil {
		return nil, err
	}
	return cert.Detach(sealed, body)
}

func appendContacts(w func(string, ...any), table string, list []Contact) {
	for _, c := range list {
		quoted := make([]string, len(c.Addresses))
		for i, a := range c.Addresses {
			quoted[i] = strconv.Quote(a.String())
		}
		w("\n[[%s]]\nidentity = %q\naddresses = [%s]\n", table, c.Identity.String(), strings.Join(quoted, ", "))
	}
}

// quoteTOML quotes printable text as a basic string of TOML.
func quoteTOML(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
