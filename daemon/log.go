package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// LogLevels are the names that the settings take.
const LogLevels = "debug, info, warn or error"

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

// NewLogHandler writes lines for people to w. A level that does not parse is the default.
func NewLogHandler(w io.Writer, level string) slog.Handler {
	l, err := ParseLogLevel(level)
	if err != nil {
		l = slog.LevelInfo
	}
	return slog.NewTextHandler(w, &slog.HandlerOptions{Level: l, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
			// One second is enough for people, and tells an observer of the log little.
			a.Value = slog.StringValue(a.Value.Time().UTC().Format("2006-01-02T15:04:05Z"))
		}
		return a
	}})
}
