package main

import (
	"errors"
	"net/netip"
	"testing"

	"cepa/internal/socksclient"
)

// The verdict follows from what is known, and says "protected" only when there was something to compare with.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	ip := netip.MustParseAddr
	for _, test := range []struct {
		name string
		in   checked
		err  error
		own  []netip.Addr
		want string
	}{
		{"an exit", checked{Seen: ip("192.0.2.1"), Outside: []netip.Addr{ip("198.51.100.1")}}, nil, nil, verdictProtected},
		{"an exit, asked directly", checked{Seen: ip("192.0.2.1"), Direct: ip("198.51.100.1")}, nil, nil, verdictProtected},
		{"nothing to compare with", checked{Seen: ip("192.0.2.1")}, nil, []netip.Addr{ip("10.0.0.1")}, verdictUnknown},
		{"what the guard sees", checked{Seen: ip("192.0.2.1"), Outside: []netip.Addr{ip("192.0.2.1")}}, nil, nil, verdictUnprotected},
		{"what is seen directly", checked{Seen: ip("192.0.2.1"), Direct: ip("192.0.2.1")}, nil, nil, verdictUnprotected},
		{"an interface", checked{Seen: ip("192.0.2.1")}, nil, []netip.Addr{ip("192.0.2.1")}, verdictUnprotected},
		{"a test network", checked{Seen: ip("127.0.0.1"), Outside: []netip.Addr{ip("127.0.0.1")}}, nil, nil, verdictTest},
		{"no client", checked{}, &socksclient.Error{Code: socksclient.CodeNoAnswer, Err: errors.New("refused")}, nil, verdictUnprotected},
		{"no circuit", checked{}, &socksclient.Error{Code: socksclient.CodeGeneral}, nil, verdictUnknown},
	} {
		test.in.judge(test.err, test.own)
		if test.in.Verdict != test.want || test.in.Why == "" {
			t.Errorf("%s: %s (%s), want %s", test.name, test.in.Verdict, test.in.Why, test.want)
		}
	}
}

func TestFindAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"192.0.2.1\n": "192.0.2.1", `{"ip":"2001:db8::1"}`: "2001:db8::1", "Your IP is 192.0.2.7.": "192.0.2.7", "::ffff:192.0.2.1": "192.0.2.1",
		"<html>12:30 <b>192.0.2.9</b>": "192.0.2.9", "none": "", "": "", "a :: b": "",
	} {
		got, ok := findAddress(text)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q: %v, want %s", text, got, want)
		}
	}
}
