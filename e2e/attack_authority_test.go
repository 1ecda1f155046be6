//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/env"
)

func init() {
	// equivocate ID: in every session of voting from now on, tell one authority, and all others, a different vote: they
	// differ in whether they list that relay.
	orders["equivocate"] = func(x *intruder, words []string) error {
		id, err := parseIdentity(words[0])
		if err != nil {
			return err
		}
		if c := x.consensus(); c == nil || c.Lookup(id) == nil {
			return errNotYet // it does not know what honest votes look like
		}
		done := make(map[time.Time]bool)
		// As docs/protocol.md, "Votes", has it: f+1 rounds of Δ, and one more, before each multiple of the period.
		interval := x.whole.Interval()
		delta := max(interval/20, 200*time.Millisecond)
		rounds := (len(x.whole.Authorities)-1)/3 + 1
		period := interval
		for k := interval / (time.Duration(rounds+2) * delta); k > 1; k-- {
			if interval%k == 0 && (interval/k)%time.Millisecond == 0 {
				period = interval / k
				break
			}
		}
		var tick func()
		tick = func() {
			x.loop.Env().Clock.AfterFunc(delta/10, tick)
			now := time.Now()
			at := now.Truncate(period).Add(period).UTC()
			if done[at] || now.Before(at.Add(-time.Duration(rounds+1)*delta)) {
				return
			}
			done[at] = true
			if err := x.twoVotes(at, id); err != nil {
				fmt.Printf("no votes for %v: %v\n", at, err)
			}
		}
		tick()
		return nil
	}
}

// twoVotes sends two votes for a session: one with a relay to the second of the other authorities, one without it to the rest.
func (x *intruder) twoVotes(at time.Time, about cert.Identity) error {
	with, err := x.vote(at, func(cert.Identity) bool { return true })
	if err != nil {
		return err
	}
	without, err := x.vote(at, func(id cert.Identity) bool { return id != about })
	if err != nil {
		return err
	}
	for i, c := range x.network.Authorities {
		head := with
		if i == 1 {
			head = without
		}
		request, err := directory.Request{Kind: directory.PushVote, Document: head}.AppendTo(nil)
		if err != nil {
			return err
		}
		x.node.Fetch(env.Target{Identity: c.Identity, Addresses: c.Addresses}, request, 5, func([]byte, error) {})
	}
	return nil
}

// vote makes a vote that lists the relays of the last consensus as far as keep says so, and gives its body to whoever asks.
func (x *intruder) vote(at time.Time, keep func(cert.Identity) bool) (head []byte, err error) {
	last := x.consensus()
	if last == nil {
		return nil, errors.New("no consensus")
	}
	held := make(map[cert.Identity]*directory.Descriptor)
	for bucket := range directory.Buckets {
		list, ok := x.ask(directory.Request{Kind: directory.AskBucket, Bucket: bucket})
		digests, err := directory.DecodeDigests(list, bucket)
		if !ok || err != nil {
			return nil, errors.New("no digests")
		}
		for _, d := range digests {
			sealed, _ := x.ask(directory.Request{Kind: directory.AskDescriptor, Digest: d})
			if d, err := directory.OpenDescriptor(sealed, x.network, time.Now()); err == nil {
				held[d.Identity] = d
			}
		}
	}
	sealed, _ := x.ask(directory.Request{Kind: directory.AskHead})
	v := &directory.Vote{
		Head:     &directory.VoteHead{ValidAfter: at, Serial: x.whole.Serial},
		Listing:  &directory.Consensus{Parameters: last.Parameters, Recommended: last.Recommended, Required: last.Required},
		Methods:  []uint64{directory.ConsensusMethod},
		Previous: sealed,
	}
	for _, r := range last.Relays {
		d := held[r.Identity]
		if d == nil || !keep(r.Identity) {
			continue
		}
		r.Weight = max(r.Weight, 1)
		v.Listing.Relays = append(v.Listing.Relays, r)
		v.Descriptors = append(v.Descriptors, directory.DescriptorRef{Digest: d.Digest, Issued: d.Issued, Published: d.Published})
	}
	head, body, err := directory.SealVote(x.whole, v, x.keys.Signer())
	if err != nil {
		return nil, err
	}
	h, _, err := directory.OpenVoteHead(head, x.whole)
	if err != nil {
		return nil, err
	}
	x.bodies[h.Digest] = body
	return head, nil
}

// fresh says whether all nodes with these parts have a consensus of the last three intervals.
func (f *field) fresh(nodes []*actor) bool {
	for _, a := range nodes {
		if c := f.consensus(a); c == nil || time.Since(c.Head.ValidAfter) > 3*f.network.Interval() {
			return false
		}
	}
	return true
}

// One of four authorities tells others different things. Who counts what he hears first has other votes
// than his colleagues, makes another consensus than they, and none of them gets a quorum of signatures.
func TestAttackEquivocatingAuthority(t *testing.T) {
	proof(t)
	const interval = 5 * time.Second
	bothWays(t, directory.Undefended{Votes: true}, func(t *testing.T, off directory.Undefended) {
		f := newField(t, plan{authorities: 4, traitors: 1, relays: 4, intruders: 1, off: off, parameters: directory.Parameters{directory.IntervalMillis: interval.Milliseconds()}})
		traitor, contested := f.node("a4"), f.node("i1")
		f.startAll(t)
		listed := append(f.parts("relay"), contested)
		f.agree(t, 4*interval, lists(listed))
		// One honest authority cannot reach the contested relay, so that the traitor's vote decides.
		x := f.parts("authority")
		host, _, _ := strings.Cut(x[2].addr, ":")
		contested.order(t, 10*time.Second, "shun %s", host)
		within(t, 10*interval, "an authority cannot reach the contested relay", func() bool {
			return strings.Contains(x[2].output(), "can no longer be reached") || x[2].count("authority_reachable") < int64(len(listed))
		})
		traitor.order(t, 20*time.Second, "equivocate %s", contested.id)
		begun := time.Now()
		if off.Votes {
			within(t, 12*interval, "the authorities make no consensus any more", func() bool { return !f.fresh(x) })
			t.Logf("%v after the attack had begun there was no fresh consensus", time.Since(begun).Round(time.Millisecond))
			return
		}
		within(t, 4*interval, "all have evidence", func() bool {
			return !slices.ContainsFunc(x, func(a *actor) bool { return a.count("authority_equivocations") == 0 })
		})
		t.Logf("all honest authorities had evidence after %v", time.Since(begun).Round(time.Millisecond))
		c := f.client(t, 20*time.Second)
		holdsFor(t, 4*interval, "there is a fresh consensus everywhere", func() bool { return f.fresh(append(f.parts("authority", "relay"), c)) })
		took := f.agree(t, 2*interval, lists(listed))
		t.Logf("all had the right consensus after %v", took.Round(time.Millisecond))
		f.flows(t, c)
	})
}

// As many authorities as the quorum can spare are killed, the network goes on, and they come back.
// Without that spare, a quorum of all, it stops.
func TestAttackKilledAuthorities(t *testing.T) {
	proof(t)
	const interval = 4 * time.Second
	for _, n := range []int{4, 7} {
		spare := n - directory.Quorum(n)
		for _, quorum := range []int{n, directory.Quorum(n)} {
			t.Run(fmt.Sprintf("n=%d, quorum %d", n, quorum), func(t *testing.T) {
				t.Parallel()
				f := newField(t, plan{authorities: n, quorum: quorum, relays: 4, parameters: directory.Parameters{directory.IntervalMillis: interval.Milliseconds()}})
				f.startAll(t)
				f.agree(t, 4*interval, f.listsAll())
				c := f.client(t, 20*time.Second)
				killed := f.parts("authority")[n-spare:]
				for _, a := range killed {
					a.signal(syscall.SIGKILL)
					<-a.done
				}
				others := f.parts("authority")[:n-spare]
				if quorum == n {
					within(t, 8*interval, "there is no fresh consensus any more", func() bool { return !f.fresh(others) })
					return
				}
				holdsFor(t, 5*interval, "there is a fresh consensus", func() bool { return f.fresh(append(slices.Clone(others), c)) })
				f.flows(t, c)
				for _, a := range killed {
					f.start(t, a)
				}
				begun := time.Now()
				within(t, 4*interval, "those that were killed sign again", func() bool {
					x := f.consensus(f.node("r1"))
					return x != nil && !slices.ContainsFunc(killed, func(a *actor) bool { return !slices.Contains(x.Head.Signers, a.id) })
				})
				took := f.agree(t, 2*interval, f.listsAll())
				t.Logf("%d of %d authorities signed again within %v, and all had the right consensus %v later", spare, n, time.Since(begun).Round(time.Millisecond)-took, took.Round(time.Millisecond))
				f.flows(t, c)
			})
		}
	}
}
