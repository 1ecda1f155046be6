package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
)

// proxyVariables are those by which programs find a proxy. curl reads only the lower-case
// form of http_proxy.
var proxyVariables = []string{"ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy"}

// RunProgram runs args with the proxy variables set to the SOCKS port, in the foreground,
// and returns its exit status. A signal from the terminal reaches the program by itself.
func RunProgram(ctx context.Context, socks netip.AddrPort, args []string) (status int, err error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.EqualFold(name, "no_proxy") && !isProxyVariable(name) {
			cmd.Env = append(cmd.Env, v)
		}
	}
	for _, name := range proxyVariables {
		cmd.Env = append(cmd.Env, name+"=socks5h://"+socks.String())
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTimeout
	// The terminal sends Ctrl-C to the program too: let it end first.
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, os.Interrupt)
	defer signal.Stop(ignored)
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		if s := exit.ExitCode(); s >= 0 {
			return s, nil
		}
		return 128 + int(signalOf(exit)), nil
	}
	return 0, fmt.Errorf("running %s: %w", args[0], err)
}

func isProxyVariable(name string) bool {
	for _, v := range proxyVariables {
		if strings.EqualFold(v, name) {
			return true
		}
	}
	return false
}
