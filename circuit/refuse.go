package circuit

import (
	"fmt"
	"slices"
	"strings"

	"cepa/cell"
	"cepa/ipaddr"
)

// refuse says what this client does not even ask an exit for.
func (c *Client) refuse(a cell.Address, err error) error {
	if err != nil {
		return err
	}
	host := "." + strings.ToLower(strings.TrimSuffix(a.Host, "."))
	within := func(domain string) bool { return !a.IsIP() && strings.HasSuffix(host, domain) }
	if within(".onion") { // no exit, and no resolver behind it, may learn who asks for these (RFC 7686)
		return refusal(a, "%s is the name of an onion service, and this network has none")
	}
	if c.cfg.Test {
		return nil
	}
	const text = "%s is not on the public internet, and exits cannot reach it; use it directly, without the proxy"
	if a.IsIP() && !ipaddr.IsPublic(a.IP) || slices.ContainsFunc([]string{".localhost", ".local", ".localdomain", ".internal", ".home.arpa"}, within) {
		return refusal(a, text)
	}
	return nil
}

// refusal is for a destination that text, which has a place for it, is about.
func refusal(a cell.Address, text string) *Error {
	return &Error{
		Reason: cell.ReasonPolicy, Where: AtClient, Text: fmt.Sprintf(text, a), Scrubbed: fmt.Sprintf(text, theDestination),
	}
}
