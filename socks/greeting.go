package socks

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	socks5 "github.com/armon/go-socks5"
)

const (
	version5       = 5
	versionRFC1929 = 1

	methodNone     = 0
	methodPassword = 2
)

// readGreeting reads an application's first message and returns it with the methods in our order of preference.
//
//	0  1  version, 5
//	1  1  n, count of methods
//	2  n  methods
//
// The library takes the first method in the client's order that it knows, and most clients that have credentials put "no
// authentication" first: the credentials, and with them the isolation, would be lost.
func readGreeting(in *bufio.Reader) ([]byte, error) {
	header, err := in.Peek(2)
	if err != nil {
		return nil, err
	}
	greeting := make([]byte, 2+int(header[1])) // at most 257
	if _, err := io.ReadFull(in, greeting); err != nil {
		return nil, err
	}
	preferPassword(greeting[2:])
	return greeting, nil
}

// preferPassword moves user and password to the front of methods, and keeps the order of the others.
func preferPassword(methods []byte) {
	if i := bytes.IndexByte(methods, methodPassword); i > 0 {
		copy(methods[1:i+1], methods[:i])
		methods[0] = methodPassword
	}
}

// readCredentials reads the user and password of RFC 1929. Lengths of 0 are accepted although the RFC starts at 1:
// clients send them when half of a "user:password" is empty.
//
//	0    1  version, 1
//	1    1  n, length of the user
//	2    n  user
//	2+n  1  m, length of the password
//	3+n  m  password
func readCredentials(r io.Reader) (*credentials, error) {
	var version [1]byte
	if _, err := io.ReadFull(r, version[:]); err != nil {
		return nil, err
	}
	if version[0] != versionRFC1929 {
		return nil, fmt.Errorf("version %d of user and password authentication", version[0])
	}
	user, err := readShort(r)
	if err != nil {
		return nil, err
	}
	password, err := readShort(r)
	if err != nil {
		return nil, err
	}
	return &credentials{user, password}, nil
}

// readShort reads bytes preceded by their length in one byte.
func readShort(r io.Reader) ([]byte, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, n[0])
	_, err := io.ReadFull(r, b)
	return b, err
}

// withoutPassword is the method "no authentication" for the library.
type withoutPassword struct{ c *session }

func (withoutPassword) GetCode() uint8 { return methodNone }

func (a withoutPassword) Authenticate(io.Reader, io.Writer) (*socks5.AuthContext, error) {
	if err := a.c.write([]byte{version5, methodNone}); err != nil {
		return nil, err
	}
	a.c.authenticated = true
	return &socks5.AuthContext{Method: methodNone}, nil
}

// withPassword is the method "user and password" for the library. Its own authenticator drops the password and asks
// whether the pair is valid; here every pair is, and both parts are kept for the isolation key.
type withPassword struct{ c *session }

func (withPassword) GetCode() uint8 { return methodPassword }

func (a withPassword) Authenticate(r io.Reader, _ io.Writer) (*socks5.AuthContext, error) {
	if err := a.c.write([]byte{version5, methodPassword}); err != nil {
		return nil, err
	}
	pair, err := readCredentials(r)
	if err != nil {
		if a.c.broken == nil {
			a.c.refuse([]byte{versionRFC1929, 1}, causeMalformed)
		}
		return nil, err
	}
	if err := a.c.write([]byte{versionRFC1929, 0}); err != nil {
		return nil, err
	}
	a.c.authenticated, a.c.credentials = true, pair
	return &socks5.AuthContext{Method: methodPassword}, nil
}
