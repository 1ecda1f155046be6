package calibrate

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"cepa/simnet/calibration"
)

// TestMeasureFindsWhatIsPlausible: every figure is there, within two orders of magnitude of those that
// are shipped, and the file can be read. With CEPA_CALIBRATE=1 it takes its time and prints the file.
func TestMeasureFindsWhatIsPlausible(t *testing.T) {
	within := time.Second
	if os.Getenv("CEPA_CALIBRATE") != "" {
		within = 20 * time.Second
	}
	heard := 0
	c, err := Measure(context.Background(), within, func(string) { heard++ })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", c.TOML())
	if heard != 9 {
		t.Errorf("%d steps were told of", heard)
	}
	d := calibration.Default()
	for _, f := range []struct {
		name      string
		got, want int64
	}{
		{"event", c.Event, d.Event}, {"pass", c.Pass, d.Pass}, {"layer", c.Layer, d.Layer}, {"receive", c.Receive, d.Receive}, {"write", c.Write, d.Write},
		{"answer", c.Answer, d.Answer}, {"begin", c.Begin, d.Begin}, {"finish", c.Finish, d.Finish}, {"verify", c.Verify, d.Verify}, {"link", c.Link, d.Link},
	} {
		if f.got < f.want/100 || f.got > f.want*100 {
			t.Errorf("%s is %d ns, and %d as shipped", f.name, f.got, f.want)
		}
	}
	if got, err := calibration.Parse(c.TOML()); err != nil || got != c {
		t.Errorf("the file: %v", err)
	}
}

// TestMeasureEndsWhenItIsTold: with its context.
func TestMeasureEndsWhenItIsTold(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Measure(ctx, time.Second, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Measure: %v", err)
	}
}
