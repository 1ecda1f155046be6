package demo

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cepa/daemon"
)

// TestMain lets the test binary play a node or a program that the demo runs.
func TestMain(m *testing.M) {
	if part := os.Getenv("DEMO_TEST_PART"); part != "" {
		os.Exit(play(part, os.Args[1:]))
	}
	os.Exit(m.Run())
}

func play(part string, args []string) int {
	switch part {
	case "env": // print what a program finds
		for _, v := range os.Environ() {
			fmt.Println(v)
		}
		return 0
	case "status":
		return 7
	case "signal":
		p, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = p.Kill()
		}
		fmt.Println(err)
		time.Sleep(time.Minute)
		return 0
	case "cat":
		n, _ := io.Copy(os.Stdout, os.Stdin)
		return int(n % 100)
	case "wait":
		c := make(chan os.Signal, 1)
		signal.Notify(c, os.Interrupt)
		fmt.Println("waiting")
		<-c
		return 9
	case "ignore":
		signal.Ignore(os.Interrupt)
		fmt.Println("waiting")
		time.Sleep(time.Minute)
		return 0
	}
	return node(part, args)
}

// node is a child of a demo of processes. A part such as "relay-2=die client=stubborn" says
// what each does; obey if nothing is said.
func node(part string, args []string) int {
	name := "client"
	for i := range args {
		if args[i] == "--config" {
			name = filepath.Base(filepath.Dir(args[i+1]))
		}
	}
	how := "obey"
	for _, p := range strings.Fields(part) {
		if who, what, ok := strings.Cut(p, "="); ok && who == name {
			how = what
		}
	}
	in := bufio.NewReader(os.Stdin)
	if line, err := in.ReadString('\n'); err != nil || line != daemon.GoLine || args[len(args)-1] != "--attached" {
		return 5
	}
	switch how {
	case "die":
		fmt.Println("level=ERROR msg=\"the disk is full\"")
		return 3
	case "shout":
		fmt.Println(strings.Repeat("x", 1<<20))
		fmt.Println("level=WARN msg=\"still there\"")
	case "stubborn":
		fmt.Println("level=WARN msg=\"ready\"")
		time.Sleep(time.Minute)
		return 0
	}
	fmt.Println("level=WARN msg=\"ready\"")
	_, _ = io.Copy(io.Discard, in)
	return 0
}
