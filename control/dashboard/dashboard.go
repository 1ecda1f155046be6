// Package dashboard holds the web page that shows a running node, and serves its files. The files are the same for
// everybody and say nothing of any node: what the page shows it asks the control API for, with a token that is in the
// fragment of the address it was opened by. Who may reach the files, and under which names, is decided by package
// control, the only caller. All that is here is read-only and may be used by several goroutines at once.
package dashboard

import (
	"embed"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// Path is where the page is.
const Path = "/dashboard/"

//go:embed static
var static embed.FS

// policy is the Content-Security-Policy of the page (https://www.w3.org/TR/CSP3/): files and answers of this port alone,
// nothing inline, no frame around it, and with trusted-types 'none' no text can become markup or script, in
// browsers that have it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// types are those of the files there are.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// Files gives the files by their names in the address, below Path; "" is the page.
func Files() map[string][]byte {
	files := make(map[string][]byte)
	entries, err := fs.ReadDir(static, "static")
	if err != nil {
		panic("dashboard: " + err.Error()) // they are in the program
	}
	for _, e := range entries {
		data, err := static.ReadFile("static/" + e.Name())
		if err != nil {
			panic("dashboard: " + err.Error())
		}
		name := e.Name()
		if name == "index.html" {
			name = ""
		}
		files[name] = data
	}
	return files
}

// Handler serves the files below Path. It answers 404 for anything else, and 405 to methods but GET and HEAD.
func Handler() http.Handler {
	files := Files()
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		name, below := strings.CutPrefix(q.URL.Path, Path)
		data, ok := files[name]
		if !below || !ok {
			http.Error(w, "there is no such file; the page is "+Path, http.StatusNotFound)
			return
		}
		if q.Method != http.MethodGet && q.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "this file takes GET, not "+strconv.Quote(q.Method), http.StatusMethodNotAllowed)
			return
		}
		ext := path.Ext(name)
		if name == "" {
			ext = ".html"
		}
		h.Set("Content-Type", types[ext])
		h.Set("Content-Length", strconv.Itoa(len(data)))
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()")
		if q.Method == http.MethodGet {
			_, _ = w.Write(data) // the reader may be gone
		}
	})
}
