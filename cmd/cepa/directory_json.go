package main

import (
	"encoding/hex"

	"cepa/cert"
	"cepa/directory"
)

// The forms in which the directory commands write JSON. Names stay; new ones may come.
type (
	jsonHead struct {
		ValidAfter string `json:"valid_after"` // RFC 3339, UTC
		FreshUntil string `json:"fresh_until"`
		ValidUntil string `json:"valid_until"`
		Digest     string `json:"digest"` // hexadecimal
	}
	jsonConsensus struct {
		jsonHead
		State       string                        `json:"state"`
		Valid       bool                          `json:"valid"` // nothing is wrong with it now
		Previous    string                        `json:"previous,omitempty"`
		Method      uint64                        `json:"method"`
		HeadBytes   int                           `json:"head_bytes"`
		BodyBytes   int                           `json:"body_bytes"`
		Quorum      int                           `json:"quorum"`
		Signatures  []jsonSignature               `json:"signatures"`
		Relays      []jsonRelay                   `json:"relays"`
		Parameters  map[directory.Parameter]int64 `json:"parameters"`
		Recommended []string                      `json:"recommended_protocols"`
		Required    []string                      `json:"required_protocols"`
		Network     jsonNetwork                   `json:"network"`
		Dir         string                        `json:"dir"`
	}
	jsonNetwork struct {
		Name   string `json:"name"`
		ID     string `json:"id"`
		Serial uint64 `json:"serial"`
		File   string `json:"file"`
	}
	jsonSignature struct {
		Identity       cert.Identity `json:"identity"`
		Valid          bool          `json:"valid"`     // it counts towards the quorum
		Authority      bool          `json:"authority"` // the network file names the signer
		CertifiedUntil string        `json:"certified_until"`
		Error          string        `json:"error,omitempty"`
	}
	jsonRelay struct {
		Identity  cert.Identity   `json:"identity"`
		Name      string          `json:"name"`
		Addresses []string        `json:"addresses"`
		Flags     []string        `json:"flags"`
		Weight    uint32          `json:"weight"` // KiB a second
		OnionKey  string          `json:"onion_key"`
		Ports     string          `json:"ports"`
		Protocols []string        `json:"protocols"`
		Families  []cert.FamilyID `json:"families"`
	}
	jsonFinding struct {
		Check  string `json:"check"`
		OK     bool   `json:"ok"`
		Detail string `json:"detail"`
	}
	jsonChange struct {
		Identity cert.Identity `json:"identity"`
		Name     string        `json:"name"`
		Fields   []jsonField   `json:"fields"`
	}
	jsonField struct {
		Field string `json:"field"`
		From  string `json:"from"`
		To    string `json:"to"`
	}
)

func headJSON(h *directory.Head) jsonHead {
	return jsonHead{rfc3339(h.ValidAfter), rfc3339(h.FreshUntil), rfc3339(h.ValidUntil), h.Digest.String()}
}

func consensusJSON(s *stored) jsonConsensus {
	n, c := s.Inspection.Network, s.Consensus
	out := jsonConsensus{
		jsonHead: headJSON(s.Head), State: s.State.String(), Valid: s.wrong() == nil, Method: s.Head.Method,
		HeadBytes: len(s.SealedHead), BodyBytes: len(s.SealedBody), Quorum: n.Quorum, Signatures: []jsonSignature{},
		Relays: relayList(selectRelays(c, 0, relayColumns["name"], false)), Parameters: c.Parameters,
		Recommended: protocolNames(c.Recommended), Required: protocolNames(c.Required),
		Network: jsonNetwork{n.Name, n.ID.String(), n.Serial, s.NetworkPath}, Dir: s.Dir,
	}
	if out.Parameters == nil {
		out.Parameters = directory.Parameters{}
	}
	if !s.Head.Previous.IsZero() {
		out.Previous = s.Head.Previous.String()
	}
	for _, g := range s.Signatures {
		j := jsonSignature{Identity: g.Identity, Valid: g.Good(), Authority: g.Authority, CertifiedUntil: rfc3339(g.Until)}
		if !g.Good() {
			j.Error = signatureText(g)
		}
		out.Signatures = append(out.Signatures, j)
	}
	return out
}

// orEmpty makes an array of JSON out of nothing.
func orEmpty[S ~[]E, E any](s S) S {
	if s == nil {
		return S{}
	}
	return s
}

func relayList(list []*directory.Relay) []jsonRelay {
	out := []jsonRelay{}
	for _, r := range list {
		j := jsonRelay{
			Identity: r.Identity, Name: r.Nickname, Flags: r.Flags.Names(), Weight: r.Weight, OnionKey: hex.EncodeToString(r.OnionKey[:]),
			Ports: r.Ports.String(), Protocols: protocolNames(r.Protocols), Families: orEmpty(r.Families),
		}
		for _, a := range r.Addresses {
			j.Addresses = append(j.Addresses, a.String())
		}
		out = append(out, j)
	}
	return out
}

func relaysJSON(s *stored, list []*directory.Relay) any {
	return struct {
		jsonHead
		Relays []jsonRelay `json:"relays"`
	}{headJSON(s.Head), relayList(list)}
}

func verificationJSON(s *stored, findings []directory.Finding) any {
	out := struct {
		jsonHead
		OK     bool          `json:"ok"`
		Checks []jsonFinding `json:"checks"`
	}{headJSON(s.Head), true, []jsonFinding{}}
	for _, f := range findings {
		j := jsonFinding{f.What, f.Err == nil, f.Detail}
		if f.Err != nil {
			out.OK, j.Detail = false, f.Err.Error()
		}
		out.Checks = append(out.Checks, j)
	}
	return out
}

func fieldsJSON(list []directory.FieldChange) []jsonField {
	out := []jsonField{}
	for _, f := range list {
		out = append(out, jsonField(f))
	}
	return out
}

func differencesJSON(a, b *stored, d directory.Differences) any {
	out := struct {
		From    jsonHead     `json:"from"`
		To      jsonHead     `json:"to"`
		Gone    []jsonRelay  `json:"gone"`
		New     []jsonRelay  `json:"new"`
		Changed []jsonChange `json:"changed"`
		Network []jsonField  `json:"network"`
	}{headJSON(a.Head), headJSON(b.Head), relayList(d.Gone), relayList(d.New), []jsonChange{}, fieldsJSON(d.Network)}
	for _, r := range d.Changed {
		out.Changed = append(out.Changed, jsonChange{r.Identity, r.Nickname, fieldsJSON(r.Fields)})
	}
	return out
}

func protocolNames(list directory.Protocols) []string {
	names := []string{}
	for _, p := range list {
		names = append(names, p.String())
	}
	return names
}
