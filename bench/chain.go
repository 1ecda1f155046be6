//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net"
	"os"
	"sync"
	"time"
)

// The limit: SOCKS5 entry -> TLS 1.3 -> hop 1 -> TLS -> hop 2 -> TLS -> hop 3 -> TCP. No cells, no onion layers, one TLS
// connection for each stream and link; each node only copies. The entry keeps a few chains open ahead of need (the warm
// circuit); a request with a user name gets one that is dialled for it (the new circuit). For each stream the entry sends
// the destination, which hop 3 answers with one byte. The first hop to start makes the key and certificate of all.

var conf *tls.Config

func loadKey(path string) {
	if _, err := os.Stat(path); err != nil {
		k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"hop"}}
		der, err := x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
		check(err)
		kb, _ := x509.MarshalECPrivateKey(k)
		check(os.WriteFile(path, append([]byte{byte(len(der) >> 8), byte(len(der))}, append(der, kb...)...), 0o600))
	}
	b, err := os.ReadFile(path)
	check(err)
	n := int(b[0])<<8 | int(b[1])
	k, err := x509.ParseECPrivateKey(b[2+n:])
	check(err)
	leaf, err := x509.ParseCertificate(b[2 : 2+n])
	check(err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	conf = &tls.Config{MinVersion: tls.VersionTLS13, ServerName: "hop", RootCAs: pool,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{b[2 : 2+n]}, PrivateKey: k}},
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true}
}

// dialTLS returns once the handshake is done.
func dialTLS(addr string) (*tls.Conn, error) {
	c, err := tls.Dial("tcp", addr, conf)
	if err == nil {
		if s := c.ConnectionState().CipherSuite; s != tls.TLS_AES_128_GCM_SHA256 {
			log.Fatal("unexpected suite ", tls.CipherSuiteName(s))
		}
	}
	return c, err
}

func pipeBoth(a, b net.Conn) {
	var wg sync.WaitGroup
	one := func(dst, src net.Conn) {
		io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 64<<10))
		if w, ok := dst.(interface{ CloseWrite() error }); ok {
			w.CloseWrite()
		}
	}
	wg.Go(func() { one(a, b) })
	wg.Go(func() { one(b, a) })
	wg.Wait()
	a.Close()
	b.Close()
}

func hop(c net.Conn, next string) {
	t := tls.Server(c, conf)
	if t.Handshake() != nil {
		c.Close()
		return
	}
	if next != "exit" {
		n, err := dialTLS(next)
		if err != nil {
			c.Close()
			return
		}
		pipeBoth(t, n)
		return
	}
	t.Write([]byte{1}) // the chain is complete
	var l [1]byte
	if _, err := io.ReadFull(t, l[:]); err != nil {
		c.Close()
		return
	}
	dst := make([]byte, l[0])
	io.ReadFull(t, dst)
	d, err := net.Dial("tcp", string(dst))
	if err != nil {
		c.Close()
		return
	}
	t.Write([]byte{1})
	pipeBoth(t, d)
}

var hop1 string

// chain dials a chain and waits until all three hops are connected.
func chain() (*tls.Conn, error) {
	c, err := dialTLS(hop1)
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	return c, err
}

func entry(c net.Conn, warm chan *tls.Conn) {
	b := make([]byte, 600)
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		c.Close()
		return
	}
	io.ReadFull(c, b[2:2+int(b[1])])
	auth := b[2] == 2
	c.Write([]byte{5, b[2]})
	if auth {
		io.ReadFull(c, b[:2]) // version, length of user
		n := int(b[1])
		io.ReadFull(c, b[:n+1])       // user, length of password
		io.ReadFull(c, b[:int(b[n])]) // password
		c.Write([]byte{1, 0})
	}
	io.ReadFull(c, b[:10]) // CONNECT, IPv4 only
	dst := net.JoinHostPort(net.IP(b[4:8]).String(), itoa(int(b[8])<<8|int(b[9])))
	var t *tls.Conn
	var err error
	if auth {
		t, err = chain()
	} else {
		t = <-warm
	}
	if err == nil {
		t.Write(append([]byte{byte(len(dst))}, dst...))
		_, err = io.ReadFull(t, b[:1])
	}
	if err != nil {
		c.Write([]byte{5, 1, 0, 1, 0, 0, 0, 0, 0, 0})
		c.Close()
		return
	}
	c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	pipeBoth(c, t)
}

func itoa(n int) string { return big.NewInt(int64(n)).String() }

func forward(role, listen, next, key string) {
	loadKey(key)
	ln, err := net.Listen("tcp", listen)
	check(err)
	warm := make(chan *tls.Conn, 8)
	if role == "entry" {
		hop1 = next
		go func() {
			for {
				c, err := chain()
				if err != nil {
					time.Sleep(100 * time.Millisecond)
					continue
				}
				warm <- c
			}
		}()
	}
	for {
		c, err := ln.Accept()
		check(err)
		if role == "entry" {
			go entry(c, warm)
		} else {
			go hop(c, next)
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
