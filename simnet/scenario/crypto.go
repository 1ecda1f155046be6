package scenario

import (
	"fmt"
	"slices"

	"cepa/simnet"
)

// setCrypto chooses the cryptography of a world.
func setCrypto(cfg *simnet.Config, mode string) error {
	if mode != simnet.Full && mode != simnet.Fast {
		return fmt.Errorf("crypto is %q; want %q or %q", mode, simnet.Full, simnet.Fast)
	}
	cfg.Crypto = mode
	return nil
}

// setFlow chooses the rule for windows of a world.
func setFlow(cfg *simnet.Config, name string) error {
	if names := simnet.FlowNames(); !slices.Contains(names, name) {
		return fmt.Errorf("flow is %q; want one of %q", name, names)
	}
	cfg.Flow = name
	return nil
}
