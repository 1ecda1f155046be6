package daemon

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"time"
)

//go:embed notice.html
var noticeText string

// maxNotice bounds the file of a notice page, in bytes.
const maxNotice = 1 << 20

// NoticePage is the page of an exit for people who look up where a connection came from.
func NoticePage(nickname, contact string) ([]byte, error) {
	page, err := template.New("notice").Parse(noticeText)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = page.Execute(&b, struct{ Nickname, Contact string }{nickname, contact})
	return b.Bytes(), err
}

// serveNotice serves the notice page of an exit at an address of its own.
func (r *Relay) serveNotice() error {
	c := &r.config
	if c.ExitNotice == "" {
		return nil
	}
	page, err := NoticePage(c.Nickname, c.Contact)
	if c.ExitNoticeFile != "" {
		page, err = readBounded(c.ExitNoticeFile, maxNotice)
	}
	if err != nil {
		return fmt.Errorf("exit_notice_file: %w", err)
	}
	if len(page) > maxNotice {
		return fmt.Errorf("exit_notice_file: %s has more than %d bytes", c.ExitNoticeFile, maxNotice)
	}
	ln, err := net.Listen("tcp", c.ExitNotice)
	if err != nil {
		return fmt.Errorf("opening the port of exit_notice: %w", err)
	}
	r.notice = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.Method != http.MethodGet && q.Method != http.MethodHead {
				w.Header().Set("Allow", "GET, HEAD")
				http.Error(w, "this page can only be read", http.StatusMethodNotAllowed)
				return
			}
			h := w.Header()
			h.Set("Content-Type", "text/html; charset=utf-8")
			h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:")
			h.Set("X-Content-Type-Options", "nosniff")
			_, _ = w.Write(page) // the reader may have gone
		}),
		ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 8 << 10,
	}
	r.noticeAt = ln.Addr()
	go func() { _ = r.notice.Serve(ln) }() // ends with Close
	return nil
}
