package directory

import (
	"net/netip"
	"slices"

	"cepa/cert"
	"cepa/ipaddr"
)

// Lottery decides which relay has to go when there is room for so many only. It is for those that no consensus lists,
// who may be any number of made-up identities: being first or fast does not help, and a flood from few networks hurts
// itself first. It bounds how many there are in an IPv4 /24, an IPv6 /48, and, four times as many, in an IPv6 /32.
//
// What a call costs depends on the number of addresses of one relay only. A Lottery belongs to one goroutine at a time.
type Lottery struct {
	perSite int
	random  func(below int) int
	all     []*Ticket
	sites   map[netip.Prefix][]*Ticket
}

// Ticket is a relay's part in a Lottery.
type Ticket struct {
	Identity cert.Identity
	at       int // index in all
	places   []place
}

// place is where a ticket is in the list of a site.
type place struct {
	site netip.Prefix
	at   int
}

// NewLottery makes a Lottery; random returns a number in [0, below).
func NewLottery(perSite int, random func(below int) int) *Lottery {
	return &Lottery{perSite: perSite, random: random, sites: make(map[netip.Prefix][]*Ticket)}
}

// NewTicket makes the ticket of a relay with these addresses. It takes part after Join.
func NewTicket(id cert.Identity, addrs []netip.AddrPort) *Ticket {
	sites := sitesOf(addrs)
	t := &Ticket{Identity: id, places: make([]place, len(sites))}
	for i, site := range sites {
		t.places[i].site = site
	}
	return t
}

// Len is the number of tickets that take part.
func (l *Lottery) Len() int { return len(l.all) }

// Loser draws who has to go before t may join: one of a site of t's that is full, or else, if full says that there is
// no room for one more of any site, one of all. It returns nil when nobody has to go, or nobody is there. The loser
// takes part until Leave.
func (l *Lottery) Loser(t *Ticket, full bool) *Ticket {
	for _, p := range t.places {
		if there := l.sites[p.site]; len(there) >= l.siteLimit(p.site) {
			return there[l.random(len(there))]
		}
	}
	if !full || len(l.all) == 0 {
		return nil
	}
	// Of eight the one with the most neighbours.
	var worst *Ticket
	most := -1
	for range 8 {
		o := l.all[l.random(len(l.all))]
		crowd := 0
		for _, p := range o.places {
			crowd = max(crowd, len(l.sites[p.site]))
		}
		if crowd > most {
			worst, most = o, crowd
		}
	}
	return worst
}

func (l *Lottery) siteLimit(site netip.Prefix) int {
	if site.Bits() == 32 {
		return 4 * l.perSite
	}
	return l.perSite
}

// Join makes a ticket take part, which it must not yet.
func (l *Lottery) Join(t *Ticket) {
	t.at = len(l.all)
	l.all = append(l.all, t)
	for i, p := range t.places {
		there := l.sites[p.site]
		t.places[i].at = len(there)
		l.sites[p.site] = append(there, t)
	}
}

// Leave takes out a ticket that takes part.
func (l *Lottery) Leave(t *Ticket) {
	last := len(l.all) - 1
	l.all[t.at] = l.all[last]
	l.all[t.at].at = t.at
	l.all[last] = nil
	l.all = l.all[:last]
	for _, p := range t.places {
		there := l.sites[p.site]
		last := len(there) - 1
		moved := there[last]
		there[p.at] = moved
		i := slices.IndexFunc(moved.places, func(o place) bool { return o.site == p.site })
		moved.places[i].at = p.at
		there[last] = nil
		if last == 0 {
			delete(l.sites, p.site)
		} else {
			l.sites[p.site] = there[:last]
		}
	}
}

// sitesOf returns the prefixes that addresses count by, each once.
func sitesOf(addrs []netip.AddrPort) []netip.Prefix {
	out := make([]netip.Prefix, 0, 2*len(addrs))
	for _, a := range addrs {
		for _, p := range []netip.Prefix{ipaddr.Site(a.Addr()), provider(a.Addr())} {
			if p.IsValid() && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}
