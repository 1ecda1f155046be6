package control_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cepa/control"
)

type source struct{ err error }

func (s source) Status(context.Context) (control.Status, error) {
	return control.Status{Name: "relay-1", Percent: 100}, s.err
}

func (s source) Counters(context.Context) (map[string]int64, error) {
	return map[string]int64{"links": 3, "exit_bytes_in": 1 << 40}, s.err
}

func TestAnswersOverTheSocket(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{
		"short": t.TempDir(),
		"long":  filepath.Join(t.TempDir(), strings.Repeat("x", 120)),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := control.Listen(dir, source{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		status, err := control.GetStatus(t.Context(), dir)
		if err != nil || status.Name != "relay-1" || status.Percent != 100 {
			t.Errorf("%s: status %+v, %v", name, status, err)
		}
		counters, err := control.GetCounters(t.Context(), dir)
		if want, _ := (source{}).Counters(t.Context()); err != nil || !maps.Equal(counters, want) {
			t.Errorf("%s: counters %v, %v", name, counters, err)
		}
		if _, err := control.Listen(dir, source{}); err == nil {
			t.Errorf("%s: a second node opened the same socket", name)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := control.GetStatus(t.Context(), dir); !errors.Is(err, control.ErrNotRunning) {
			t.Errorf("%s: after Close: %v", name, err)
		}
	}
}

func TestSocketIsForItsUserAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := control.Listen(dir, source{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	info, err := os.Stat(filepath.Join(dir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		t.Errorf("control.sock has mode %v", info.Mode())
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "control.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := control.Listen(dir, source{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestErrorOfTheNodeIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := control.Listen(dir, source{err: errors.New("the node is stopping")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := control.GetCounters(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "the node is stopping") {
		t.Errorf("got %v", err)
	}
}
