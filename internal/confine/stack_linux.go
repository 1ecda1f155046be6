package confine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"cepa/internal/socksclient"
)

// Bounds of the stack.
const (
	mtu         = 16 << 10 // bytes of a packet: the wire is memory, so larger is cheaper
	queueLength = 1024     // packets to the program that the device has not taken
	maxOpening  = 1024     // connections being opened; more SYNs wait for their repetition
	maxOpen     = 8192     // connections
	openTimeout = 2 * time.Minute
	nic         = 1
)

// wire is the device's other end: a stack that opens a SOCKS stream for each TCP connection.
type wire struct {
	device *os.File
	dialer socksclient.Dialer
	names  *names
	stack  *stack.Stack
	link   *channel.Endpoint
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	slots  chan struct{}

	mu   sync.Mutex
	syns map[stack.TransportEndpointID][]byte // the first bytes of packets that ask for connections
}

func newWire(device *os.File, dialer socksclient.Dialer) (*wire, error) {
	w := &wire{
		device: device, dialer: dialer, names: newNames(maxNames), link: channel.New(queueLength, mtu, ""),
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
		}),
		syns: map[stack.TransportEndpointID][]byte{}, slots: make(chan struct{}, maxOpen),
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	if err := w.configure(); err != nil {
		w.close()
		return nil, err
	}
	if err := w.serveNames(); err != nil {
		w.close()
		return nil, err
	}
	w.tasks.Go(w.receive)
	w.tasks.Go(w.send)
	return w, nil
}

func (w *wire) configure() error {
	fail := func(what string, err tcpip.Error) error { return fmt.Errorf("starting the stack: %s: %s", what, err) }
	if err := w.stack.CreateNIC(nic, w.link); err != nil {
		return fail("device", err)
	}
	for _, step := range []struct {
		what string
		err  tcpip.Error
	}{
		{"all addresses", w.stack.SetPromiscuousMode(nic, true)},
		{"all senders", w.stack.SetSpoofing(nic, true)},
	} {
		if step.err != nil {
			return fail(step.what, step.err)
		}
	}
	address := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddrFrom4(resolverAddress.As4()).WithPrefix()}
	if err := w.stack.AddProtocolAddress(nic, address, stack.AddressProperties{}); err != nil {
		return fail("resolver's address", err)
	}
	w.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}, {Destination: header.IPv6EmptySubnet, NIC: nic}})
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	if err := w.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); err != nil {
		return fail("SACK", err)
	}
	if err := w.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &moderate); err != nil {
		return fail("receive buffers", err)
	}
	forwarder := tcp.NewForwarder(w.stack, 0, maxOpening, w.open)
	w.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, func(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
		w.remember(id, p)
		return forwarder.HandlePacket(id, p)
	})
	return nil
}

// serveNames answers DNS questions over UDP and TCP.
func (w *wire) serveNames() error {
	at := tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(resolverAddress.As4()), Port: 53}
	packets, err := gonet.DialUDP(w.stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return fmt.Errorf("starting the resolver: %w", err)
	}
	listener, err := gonet.ListenTCP(w.stack, at, ipv4.ProtocolNumber)
	if err != nil {
		packets.Close()
		return fmt.Errorf("starting the resolver: %w", err)
	}
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: w.names}, {Listener: listener, Handler: w.names}} {
		w.tasks.Go(func() { _ = s.ActivateAndServe() })
		context.AfterFunc(w.ctx, func() { packets.Close(); listener.Close() })
	}
	return nil
}

// receive reads what the program sends until the device is gone.
func (w *wire) receive() {
	b := make([]byte, mtu+64)
	for {
		n, err := w.device.Read(b)
		if err != nil {
			return
		}
		p := b[:n]
		switch judge(p) {
		case refuse:
			_, _ = w.device.Write(unreachable(p, prohibited))
		case accept:
			proto := ipv4.ProtocolNumber
			if p[0]>>4 == 6 {
				proto = ipv6.ProtocolNumber
			}
			packet := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(p)}) // copies
			w.link.InjectInbound(proto, packet)
			packet.DecRef()
		}
	}
}

// send writes what the stack sends.
func (w *wire) send() {
	for {
		p := w.link.ReadContext(w.ctx)
		if p == nil {
			return
		}
		v := p.ToView()
		_, _ = w.device.Write(v.AsSlice()) // what the device does not take is sent again by TCP
		v.Release()
		p.DecRef()
	}
}

// remember keeps the head of a packet that asks for a connection, for the ICMP message that may have to answer it.
func (w *wire) remember(id stack.TransportEndpointID, p *stack.PacketBuffer) {
	t := header.TCP(p.TransportHeader().Slice())
	if len(t) < header.TCPMinimumSize || t.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return
	}
	head := append(append([]byte(nil), p.NetworkHeader().Slice()...), t...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.syns) < maxOpening {
		w.syns[id] = head
	}
}

func (w *wire) takeSYN(id stack.TransportEndpointID) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	head := w.syns[id]
	delete(w.syns, id)
	return head
}

// open answers one SYN when it is known what came of it.
func (w *wire) open(r *tcp.ForwarderRequest) {
	id := r.ID()
	defer w.takeSYN(id)
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	default:
		r.Complete(true)
		return
	}
	outer, err := w.dial(id)
	if err != nil {
		w.decline(r, id, err)
		return
	}
	defer outer.Close()
	var queue waiter.Queue
	endpoint, failed := r.CreateEndpoint(&queue)
	if failed != nil {
		r.Complete(true)
		return
	}
	r.Complete(false)
	w.takeSYN(id)
	carry(outer, gonet.NewTCPConn(&queue, endpoint), endpoint.Abort)
}

// errUnknownAddress is an address of namesPrefix that no answer had.
var errUnknownAddress = errors.New("no name was given this address")

func (w *wire) dial(id stack.TransportEndpointID) (*socksclient.Conn, error) {
	to, ok := netip.AddrFromSlice(id.LocalAddress.AsSlice())
	if !ok {
		return nil, errUnknownAddress
	}
	host := to.Unmap().String()
	if namesPrefix.Contains(to.Unmap()) {
		if host, ok = w.names.name(to.Unmap()); !ok {
			return nil, errUnknownAddress
		}
	}
	ctx, cancel := context.WithTimeout(w.ctx, openTimeout)
	defer cancel()
	return w.dialer.Dial(ctx, host, id.LocalPort)
}

// decline says no to a SYN in the way that TCP has for the reason.
func (w *wire) decline(r *tcp.ForwarderRequest, id stack.TransportEndpointID, err error) {
	code := uint8(netUnreachable)
	var e *socksclient.Error
	if errors.As(err, &e) {
		switch e.Code {
		case socksclient.CodeRefused:
			r.Complete(true)
			return
		case socksclient.CodeNotAllowed:
			code = prohibited
		case socksclient.CodeHostUnreachable, socksclient.CodeTimeout:
			code = hostUnreachable
		}
	} else if errors.Is(err, errUnknownAddress) {
		code = hostUnreachable
	}
	head := w.takeSYN(id)
	if head == nil {
		r.Complete(true)
		return
	}
	_, _ = w.device.Write(unreachable(head, code))
	r.Complete(false)
}

// carry moves bytes both ways until both have ended, or one has broken: then the program's connection breaks as well.
func carry(outer *socksclient.Conn, inner *gonet.TCPConn, abort func()) {
	defer inner.Close()
	done := make(chan error, 2)
	way := func(to, from net.Conn, end func() error) {
		_, err := io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from})
		if err == nil {
			err = end()
		}
		done <- err
	}
	go way(inner, outer, inner.CloseWrite)
	go way(outer, inner, outer.CloseWrite)
	for range 2 {
		if err := <-done; err != nil {
			abort()
			_ = outer.SetLinger(0)
			_ = outer.Close()
		}
	}
}

// close ends everything. The device must have been closed if it was ever there.
func (w *wire) close() {
	w.cancel()
	_ = w.device.Close()
	w.link.Close()
	w.tasks.Wait()
	w.stack.Close()
}
