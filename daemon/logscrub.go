package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
)

// scrubbed stands for an address or the name of a host.
const scrubbed = "[scrubbed]"

// scrubber leaves addresses and names of hosts out of what it passes on: in messages, in values of all kinds, and in
// the texts of errors. What remains are ports alone, identities of relays, counts, times and names of files.
type scrubber struct{ slog.Handler }

// Handle implements slog.Handler.
func (s scrubber) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, scrub(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(scrubAttr(a))
		return true
	})
	return s.Handler.Handle(ctx, clean)
}

// WithAttrs implements slog.Handler.
func (s scrubber) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = scrubAttr(a)
	}
	return scrubber{s.Handler.WithAttrs(clean)}
}

// WithGroup implements slog.Handler.
func (s scrubber) WithGroup(name string) slog.Handler { return scrubber{s.Handler.WithGroup(name)} }

func scrubAttr(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(scrub(a.Value.String()))
	case slog.KindGroup:
		group := a.Value.Group()
		clean := make([]slog.Attr, len(group))
		for i, member := range group {
			clean[i] = scrubAttr(member)
		}
		a.Value = slog.GroupValue(clean...)
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case nil:
		case error:
			if p := reflect.ValueOf(v); p.Kind() == reflect.Pointer && p.IsNil() {
				a.Value = slog.StringValue("<nil>") // what Error would do to it is not known
				break
			}
			a.Value = slog.StringValue(scrubError(v))
		default:
			a.Value = slog.StringValue(scrub(fmt.Sprint(v)))
		}
	}
	return a
}

// scrubError is the text of an error without what it says of hosts, also of names that do not look like any.
func scrubError(err error) string {
	text := err.Error()
	var dns *net.DNSError
	if errors.As(err, &dns) {
		for _, name := range []string{dns.Name, dns.Server} {
			if name != "" {
				text = strings.ReplaceAll(text, name, scrubbed)
			}
		}
	}
	return scrub(text)
}

// Candidates for what is left out: they are looked at more closely by scrub.
var (
	urls   = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s"]+`)
	quad   = regexp.MustCompile(`(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2})?(?::\d{1,5})?`)
	colons = regexp.MustCompile(`\[?(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f.:]*(?:%[0-9A-Za-z_.-]+)?(?:/\d{1,3})?(?:\](?::\d{1,5})?)?`)
	names  = regexp.MustCompile(`[^\s"'=,;()<>\[\]{}|]*[\pL\pN_-](?:\.[\pL\pN_-]+)+\.?(?::\d{1,5})?|[\pL\pN_-]+:\d{1,5}\b`)
)

// fileEndings are what ends names of files in messages of this program. None is a top-level domain.
var fileEndings = map[string]bool{
	"toml": true, "key": true, "sock": true, "path": true, "head": true, "body": true, "fork": true, "signed": true, "voted": true,
	"log": true, "json": true, "next": true, "lock": true, "tmp": true, "conf": true, "prom": true, "service": true,
}

// scrub leaves addresses and names of hosts out of a text.
func scrub(text string) string {
	if !strings.ContainsAny(text, ".:") {
		return text
	}
	text = urls.ReplaceAllString(text, scrubbed)
	text = colons.ReplaceAllStringFunc(text, func(s string) string {
		switch {
		case !isIPv6(s):
			return s
		case strings.HasSuffix(s, ":") && !strings.HasSuffix(s, "::"): // "dial 2001:db8::1: refused"
			return scrubbed + ":"
		}
		return scrubbed
	})
	text = quad.ReplaceAllString(text, scrubbed)
	return names.ReplaceAllStringFunc(text, func(s string) string {
		if isHost(s) {
			return scrubbed
		}
		return s
	})
}

// isIPv6 says whether hexadecimal digits with colons are an address, or so much like one that they are left out.
func isIPv6(s string) bool {
	if strings.Contains(s, "::") || strings.Count(s, ":") > 6 {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(s, "[]:."))
	return err == nil
}

// isHost says whether a word with a dot or a port may be the name of a host, and not a file, a number or a version.
func isHost(s string) bool {
	name, port, hasPort := strings.Cut(s, ":")
	if strings.ContainsAny(name, `/\`) { // a path
		return false
	}
	if hasPort && name != "" && strings.Trim(port, "0123456789") == "" {
		return strings.Trim(name, "0123456789") != "" && !days.MatchString(name) // not a time of day
	}
	name = strings.TrimSuffix(name, ".")
	last := name[strings.LastIndexByte(name, '.')+1:]
	if name == last || fileEndings[strings.ToLower(last)] {
		return false
	}
	return strings.Trim(last, "0123456789") != "" && !durations.MatchString(name) && !versions.MatchString(name)
}

// What has dots or colons and is no host: "1.5s", a time, "v1.2.3-rc1".
var (
	durations = regexp.MustCompile(`^-?(?:\d+h)?(?:\d+m)?\d+(?:\.\d+)?(?:ns|µs|us|ms|s|m|h|KiB|MiB|GiB)?$`)
	days      = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d$`) // with the hour, before a colon
	versions  = regexp.MustCompile(`^(?:v|go)?\d+\.\d+(?:\.\d+)?(?:[-+][0-9A-Za-z.-]*)?$`)
)
