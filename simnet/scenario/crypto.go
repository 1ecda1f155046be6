package scenario

import (
	"fmt"

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
