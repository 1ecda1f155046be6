package daemon

import (
	"testing"

	"cepa/control"
	"cepa/directory"
)

// TestEveryWarningHasAdvice: whoever is warned is told what to do about just that.
func TestEveryWarningHasAdvice(t *testing.T) {
	t.Parallel()
	for _, code := range directory.WarningCodes() {
		if !control.HasAdvice(code) {
			t.Errorf("no advice for %s", code)
		}
	}
}
