package flowstudy

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestTry(t *testing.T) {
	for _, s := range Scenarios() {
		if !strings.HasPrefix(s.Name, os.Getenv("SC")) {
			continue
		}
		for _, rule := range strings.Split(os.Getenv("RULES"), ",") {
			began := time.Now()
			r, err := Measure(s, rule, 1)
			if err != nil {
				t.Error(err)
				continue
			}
			t.Logf("%s %s %.1f %v", s.Name, rule, time.Since(began).Seconds(), r.Values)
		}
	}
}
