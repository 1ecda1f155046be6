package scenario

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"cepa/cell"
	"cepa/simnet"
	"cepa/simnet/calibration"
)

// reference is where the scenario names a file, and what for.
type reference struct {
	key, name string
	read      func(data []byte) error
}

// references are all that the scenario names, in the order of the file.
func (s *Scenario) references() []reference {
	var list []reference
	if isFile(s.Network.latency()) {
		list = append(list, reference{"network.latency", s.Network.Latency, s.readLatency})
	}
	if s.CPU.File != "" {
		list = append(list, reference{"cpu.file", s.CPU.File, s.readCalibration})
	}
	for i := range s.Clients {
		for j := range s.Clients[i].Loads {
			if l := &s.Clients[i].Loads[j]; l.File != "" {
				list = append(list, reference{fmt.Sprintf("clients[%d].load[%d].file", i, j), l.File, func(data []byte) error { return s.readTrace(l.File, data) }})
			}
		}
	}
	for i := range s.Churn {
		if c := &s.Churn[i]; c.File != "" {
			list = append(list, reference{fmt.Sprintf("churn[%d].file", i), c.File, func(data []byte) error { return s.readChurn(c, data) }})
		}
	}
	return list
}

// Attach reads the files that the scenario refers to, by their names below its folder.
func (s *Scenario) Attach(folder fs.FS) error {
	s.files, s.made = make(map[string][]byte), made{}
	p := &problems{s: s}
	for _, r := range s.references() {
		data, known := s.files[r.name]
		if !known {
			var err error
			if data, err = readFile(folder, r.name, maxFile); err != nil {
				p.add(r.key, "cannot be read: %v", err)
				continue
			}
			s.files[r.name] = data
		}
		if err := r.read(data); err != nil {
			p.add(r.key, "is %q: %v", r.name, err)
		}
	}
	s.checkPlaces(p)
	if p.err != nil {
		return fmt.Errorf("scenario %s: %w", s.name, p.err)
	}
	return nil
}

// attached makes sure that files were read, for scenarios without any.
func (s *Scenario) attached() error {
	if s.made.latency == nil {
		if len(s.references()) > 0 {
			return errors.New("the scenario's files are not attached: read it with Open, or call Attach")
		}
		return s.Attach(nothing{})
	}
	return nil
}

// nothing is a folder without files.
type nothing struct{}

func (nothing) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// checkPlaces compares the regions that machines are in with those that there are.
func (s *Scenario) checkPlaces(p *problems) {
	var err error
	if s.made.latency == nil {
		if s.made.latency, err = s.Network.matrix(); err != nil {
			p.add("network.latency", "is wrong: %v", err)
			return
		}
	}
	regions := s.made.latency.Regions
	weights := func(key string, m map[string]int) {
		for name := range m { // order: of several problems the first in the file is told
			p.oneOf(key+"."+name, name, regions...)
		}
	}
	weights("network.regions", s.Network.Regions)
	access := func(key string, a *Access) {
		if a.Region != "" {
			p.oneOf(key+".region", a.Region, regions...)
		}
		weights(key+".regions", a.Regions)
	}
	for i := range s.Relays {
		access(fmt.Sprintf("relays[%d]", i), &s.Relays[i].Access)
	}
	for i := range s.Clients {
		access(fmt.Sprintf("clients[%d]", i), &s.Clients[i].Access)
	}
	for i := range s.Servers {
		access(fmt.Sprintf("servers[%d]", i), &s.Servers[i].Access)
	}
}

// matrix is the latency, when it is no file.
func (n *Network) matrix() (*simnet.Latency, error) {
	if n.latency() == latencyInternet {
		return simnet.Internet(), nil
	}
	var trip Duration
	if err := trip.UnmarshalText([]byte(n.Latency)); err != nil {
		return nil, err
	}
	return simnet.NewLatency([]string{"here"}, [][]time.Duration{{time.Duration(trip)}}, n.Jitter)
}

func (s *Scenario) readLatency(data []byte) (err error) {
	if strings.HasSuffix(s.Network.Latency, ".gml") {
		s.made.latency, err = simnet.ParseLatencyGML(string(data), s.Network.Jitter)
	} else {
		s.made.latency, err = simnet.ParseLatencyCSV(string(data), s.Network.Jitter)
	}
	return err
}

func (s *Scenario) readCalibration(data []byte) error {
	c, err := calibration.Parse(data)
	if err != nil {
		return err
	}
	s.made.cpu = &c
	return nil
}

// Calibration is what work costs; zero if it is free.
func (s *Scenario) Calibration() calibration.Calibration {
	switch {
	case s.CPU.Free:
		return calibration.Calibration{Machine: "a machine on which work takes no time"}
	case s.made.cpu != nil:
		return *s.made.cpu
	}
	return calibration.Default()
}

// request is one stream of a trace.
type request struct {
	at       time.Duration // since the beginning of the trace
	host     string
	port     uint16
	up, down int64
}

const maxRequests = 10_000_000

// readTrace reads a CSV of streams: seconds since the beginning, host, port, bytes up, bytes down. A first
// line of words, and lines that begin with #, are comments.
func (s *Scenario) readTrace(name string, data []byte) error {
	var list []request
	err := readTable(data, 5, func(line int, f []string) error {
		at, err := seconds(f[0])
		if err != nil {
			return err
		}
		if len(list) > 0 && at < list[len(list)-1].at {
			return errors.New("the times go back")
		}
		if _, err := cell.ParseAddress(f[1]); err != nil {
			return err
		}
		port, err := strconv.ParseUint(f[2], 10, 16)
		if err != nil || port == 0 {
			return fmt.Errorf("%q is no port, 1 to 65535", f[2])
		}
		up, err1 := strconv.ParseInt(f[3], 10, 64)
		down, err2 := strconv.ParseInt(f[4], 10, 64)
		if err1 != nil || err2 != nil || up < 0 || down < 0 || up > maxQuantity || down > maxQuantity {
			return fmt.Errorf("%q and %q are not two numbers of bytes up to 1 TiB", f[3], f[4])
		}
		if !s.serves(f[1], uint16(port)) {
			return fmt.Errorf("no server is called %q and answers at port %d", f[1], port)
		}
		if len(list) == maxRequests {
			return fmt.Errorf("more than %d streams", maxRequests)
		}
		list = append(list, request{at, f[1], uint16(port), up, down})
		return nil
	})
	if s.made.traces == nil {
		s.made.traces = make(map[string][]request)
	}
	s.made.traces[name] = list
	return err
}

// arrival says that a machine comes or goes.
type arrival struct {
	at   time.Duration
	node string
	what string // up, down, or leave
}

// readChurn reads a CSV of who comes and goes: seconds since the beginning, name of the machine, and "up", "down"
// (it crashes) or "leave" (in order).
func (s *Scenario) readChurn(c *Churn, data []byte) error {
	var list []arrival
	err := readTable(data, 3, func(line int, f []string) error {
		at, err := seconds(f[0])
		if err != nil {
			return err
		}
		if len(list) > 0 && at < list[len(list)-1].at {
			return errors.New("the times go back")
		}
		group, _ := s.groupOf(f[1])
		if group == "" || !slices.Contains(c.Groups, group) {
			return fmt.Errorf("%q is no machine of %s", f[1], strings.Join(c.Groups, ", "))
		}
		if f[2] != "up" && f[2] != "down" && f[2] != "leave" {
			return fmt.Errorf("%q; want up, down or leave", f[2])
		}
		if len(list) == maxRequests {
			return fmt.Errorf("more than %d lines", maxRequests)
		}
		list = append(list, arrival{at, f[1], f[2]})
		return nil
	})
	if s.made.churn == nil {
		s.made.churn = make(map[string][]arrival)
	}
	s.made.churn[c.File] = list
	return err
}

// readTable calls f for each line of a CSV.
func readTable(data []byte, columns int, f func(line int, fields []string) error) error {
	r := csv.NewReader(bytes.NewReader(data))
	r.FieldsPerRecord, r.Comment, r.TrimLeadingSpace, r.ReuseRecord = columns, '#', true, true
	for first := true; ; first = false {
		fields, err := r.Read()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := seconds(fields[0]); first && err != nil {
			continue // what the columns are called
		}
		line, _ := r.FieldPos(0)
		if err := f(line, fields); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
	}
}

// seconds reads a time in seconds with at most nine decimals, exactly.
func seconds(text string) (time.Duration, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	if len(fraction) > 9 {
		fraction = fraction[:9]
	}
	s, err := strconv.ParseUint(whole, 10, 32)
	var ns uint64
	if err == nil {
		ns, err = strconv.ParseUint(fraction+strings.Repeat("0", 9-len(fraction)), 10, 32)
	}
	if err != nil {
		return 0, fmt.Errorf("%q is no time in seconds", text)
	}
	return time.Duration(s)*time.Second + time.Duration(ns), nil
}
