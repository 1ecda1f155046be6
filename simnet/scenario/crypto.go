package scenario

import (
	"fmt"

	"cepa/simnet"
)

// setCrypto chooses the cryptography of a world.
func setCrypto(cfg *simnet.Config, mode string) error {
	if mode != "full" {
		return fmt.Errorf("crypto is %q; want \"full\"", mode)
	}
	return nil
}
