package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"cepa/nearest"
)

// LogLevels are the names that the settings take.
const LogLevels = "debug, info, warn or error"

// LogFormats are the names that the settings take.
const LogFormats = "text or json"

// ParseLogLevel reads one of LogLevels; empty is the default.
func ParseLogLevel(name string) (slog.Level, error) {
	if name == "" {
		name = DefaultLogLevel
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil || strings.ContainsAny(name, "+-") {
		return level, fmt.Errorf("log_level %q is not %s", name, LogLevels)
	}
	return level, nil
}

// CheckLogFormat says what is wrong with the name of a format; empty is text.
func CheckLogFormat(name string) error {
	switch name {
	case "", "text", "json":
		return nil
	}
	hint := ""
	if near := nearest.Name(name, []string{"text", "json"}); near != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", near)
	}
	return fmt.Errorf("log_format %q is not %s%s", name, LogFormats, hint)
}

// LogOptions say how a log is written. The zero value is for people, at the default level, without addresses.
type LogOptions struct {
	Level  string // one of LogLevels; empty, or one that does not parse, is the default
	Format string // text or json; empty is text
	// Addresses leaves addresses and names of destinations in.
	Addresses bool
}

// NewLogHandler writes lines for people to w, without addresses. A level that does not parse is the default.
func NewLogHandler(w io.Writer, level string) slog.Handler {
	return NewLog(w, LogOptions{Level: level})
}

// NewLog writes a log to w, one line in one Write. Times are whole seconds: that is enough for people, and tells whoever
// compares the log with traffic little. A message that comes too often is left out, and how often is said; see
// repeatsMost.
func NewLog(w io.Writer, o LogOptions) slog.Handler {
	level, err := ParseLogLevel(o.Level)
	if err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: wholeSeconds}
	var h slog.Handler
	if o.Format == "json" {
		h = slog.NewJSONHandler(w, options)
	} else {
		h = slog.NewTextHandler(w, options)
	}
	if !o.Addresses {
		h = scrubber{h}
	}
	return limitRepeats(h, func(d time.Duration, f func()) { time.AfterFunc(d, f) })
}

// wholeSeconds writes all times in UTC and whole seconds.
func wholeSeconds(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindTime {
		a.Value = slog.StringValue(a.Value.Time().UTC().Format("2006-01-02T15:04:05Z"))
	}
	return a
}
