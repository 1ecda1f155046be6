//go:build linux

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// sniffer keeps every packet of an interface of this network namespace.
type sniffer struct {
	fd      int
	stop    chan struct{}
	done    chan struct{}
	mu      sync.Mutex
	packets [][]byte // IP packets
}

// sniffBuffer holds what comes while the machine has other work.
const sniffBuffer = 512 * mebibyte

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// sniff starts to capture on an interface, by its number: 0 is all of them.
func sniff(t *testing.T, index int) *sniffer {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, int(htons(syscall.ETH_P_ALL)))
	if err != nil {
		lacking(t, "packets cannot be captured: %v", err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, sniffBuffer); err != nil {
		_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, sniffBuffer)
	}
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: 100_000}); err != nil {
		t.Fatal(err)
	}
	if index != 0 {
		if err := syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: htons(syscall.ETH_P_ALL), Ifindex: index}); err != nil {
			t.Fatal(err)
		}
	}
	s := &sniffer{fd: fd, stop: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *sniffer) run() {
	defer close(s.done)
	const packetHost, packetOutgoing = 0, 4
	buf := make([]byte, 1<<17)
	for {
		n, from, err := syscall.Recvfrom(s.fd, buf, syscall.MSG_TRUNC)
		if err != nil {
			select {
			case <-s.stop:
				return // only when all that was there has been read
			default:
				continue
			}
		}
		link, ok := from.(*syscall.SockaddrLinklayer)
		if !ok || link.Hatype == syscall.ARPHRD_LOOPBACK && link.Pkttype == packetOutgoing {
			continue // the loopback interface shows each packet twice
		}
		if link.Protocol != htons(syscall.ETH_P_IP) && link.Protocol != htons(syscall.ETH_P_IPV6) {
			continue
		}
		s.mu.Lock()
		s.packets = append(s.packets, slices.Clone(buf[:min(n, len(buf))]))
		s.mu.Unlock()
	}
}

// end stops the capture and returns the packets; that none was lost is checked.
func (s *sniffer) end(t *testing.T) [][]byte {
	t.Helper()
	time.Sleep(200 * time.Millisecond) // what was sent last
	close(s.stop)
	<-s.done
	var stats struct{ packets, drops uint32 } // struct tpacket_stats
	size := uint32(unsafe.Sizeof(stats))
	const packetStatistics = 6
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(s.fd), syscall.SOL_PACKET, packetStatistics,
		uintptr(unsafe.Pointer(&stats)), uintptr(unsafe.Pointer(&size)), 0)
	syscall.Close(s.fd)
	if errno != 0 || stats.drops > 0 {
		t.Fatalf("the capture lost %d packets of %d (%v)", stats.drops, stats.packets, errno)
	}
	return s.packets
}

// packet is the part of a TCP or UDP packet over IPv4 that the tests look at.
type packet struct {
	protocol uint8
	from, to netip.AddrPort
	seq      uint32
	flags    uint8
	data     []byte
}

const (
	flagSYN = 2
	flagACK = 16
)

// parsePacket reads an IP packet; false is for what is neither TCP nor UDP over IPv4.
func parsePacket(b []byte) (p packet, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return p, false
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 || total > len(b) {
		total = len(b)
	}
	p.protocol = b[9]
	from, to := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	b = b[header:total]
	if p.protocol != syscall.IPPROTO_TCP && p.protocol != syscall.IPPROTO_UDP || len(b) < 8 {
		return p, false
	}
	p.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(b))
	p.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:]))
	if p.protocol == syscall.IPPROTO_UDP {
		p.data = b[8:]
		return p, true
	}
	if len(b) < 20 || len(b) < int(b[12]>>4)*4 {
		return p, false
	}
	p.seq, p.flags, p.data = binary.BigEndian.Uint32(b[4:]), b[13], b[int(b[12]>>4)*4:]
	return p, true
}

// conversation is a captured TCP connection: what each side sent, in order and whole.
type conversation struct {
	client, server     netip.AddrPort
	toServer, toClient []byte
}

// conversations puts the TCP connections of a capture together again.
func conversations(packets [][]byte) ([]*conversation, error) {
	type direction struct{ from, to netip.AddrPort }
	type half struct {
		isn      uint32
		segments []packet
	}
	halves := make(map[direction]*half)
	var order []direction
	for _, b := range packets {
		p, ok := parsePacket(b)
		if !ok || p.protocol != syscall.IPPROTO_TCP {
			continue
		}
		d := direction{p.from, p.to}
		if p.flags&flagSYN != 0 {
			if h := halves[d]; h != nil && h.isn != p.seq {
				return nil, fmt.Errorf("the ports %v were used twice", d)
			} else if h == nil {
				halves[d] = &half{isn: p.seq}
				if p.flags&flagACK == 0 {
					order = append(order, d)
				}
			}
			continue
		}
		if h := halves[d]; h != nil && len(p.data) > 0 {
			h.segments = append(h.segments, p)
		}
	}
	whole := func(d direction) ([]byte, error) {
		h := halves[d]
		if h == nil {
			return nil, nil // refused
		}
		slices.SortStableFunc(h.segments, func(a, b packet) int {
			return int(int64(a.seq-h.isn) - int64(b.seq-h.isn))
		})
		var b bytes.Buffer
		for _, p := range h.segments {
			at := int(p.seq - h.isn - 1)
			switch {
			case at > b.Len():
				return nil, fmt.Errorf("from %v to %v the capture has a gap at byte %d", d.from, d.to, b.Len())
			case at+len(p.data) > b.Len():
				b.Write(p.data[b.Len()-at:])
			}
		}
		return b.Bytes(), nil
	}
	var all []*conversation
	for _, d := range order {
		c := &conversation{client: d.from, server: d.to}
		var err error
		if c.toServer, err = whole(d); err != nil {
			return nil, err
		}
		if c.toClient, err = whole(direction{d.to, d.from}); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}
