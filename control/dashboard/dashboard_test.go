package dashboard

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// TestHeaders protects what keeps browsers from doing more than the page needs.
func TestHeaders(t *testing.T) {
	t.Parallel()
	h := Handler()
	for name := range Files() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", Path+name, nil))
		r := w.Result()
		if r.StatusCode != http.StatusOK || w.Body.Len() == 0 || r.Header.Get("Content-Type") == "" {
			t.Errorf("%q: %s, %d bytes of %q", name, r.Status, w.Body.Len(), r.Header.Get("Content-Type"))
		}
		for header, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := r.Header.Get(header); got != want {
				t.Errorf("%q: %s is %q", name, header, got)
			}
		}
		policy := directives(r.Header.Get("Content-Security-Policy"))
		for directive, want := range map[string]string{
			"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'", "img-src": "'self'", "base-uri": "'none'",
			"form-action": "'none'", "frame-ancestors": "'none'", "require-trusted-types-for": "'script'", "trusted-types": "'none'",
		} {
			if policy[directive] != want {
				t.Errorf("%q: the policy has %s %s", name, directive, policy[directive])
			}
		}
		if len(policy) != 10 {
			t.Errorf("%q: the policy allows something that this test does not know: %v", name, policy)
		}
	}
}

func directives(policy string) map[string]string {
	all := make(map[string]string)
	for _, d := range strings.Split(policy, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(d), " ")
		all[name] = value
	}
	return all
}

// TestOnlyItsFiles: nothing but the files, and nothing but reading them.
func TestOnlyItsFiles(t *testing.T) {
	t.Parallel()
	h := Handler()
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", Path, 200}, {"HEAD", Path, 200}, {"GET", Path + "index.html", 404}, {"GET", Path + "nothing.js", 404}, {"GET", Path + "../dashboard.go", 404},
		{"GET", Path + "static/main.js", 404}, {"GET", "/", 404}, {"GET", "/v1/status", 404}, {"POST", Path, 405}, {"DELETE", Path + "main.js", 405}, {"OPTIONS", Path, 405},
	} {
		w := httptest.NewRecorder()
		q := httptest.NewRequest(c.method, Path, nil)
		q.URL.Path = c.path
		h.ServeHTTP(w, q)
		if w.Code != c.want || c.method == "HEAD" && w.Body.Len() > 0 {
			t.Errorf("%s %s: %d, %d bytes; want %d", c.method, c.path, w.Code, w.Body.Len(), c.want)
		}
		if w.Code != 200 && w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: a refusal without nosniff", c.method, c.path)
		}
	}
}

// TestFilesAreWholeAndAlone: the files name nothing of other hosts and nothing that is not among them, hold no script or
// style inside the markup, and never make markup of text.
func TestFilesAreWholeAndAlone(t *testing.T) {
	t.Parallel()
	files := Files()
	named := regexp.MustCompile(`(?:\b(?:src|href)="|\bfrom "\./|\bimport\(?\s*"|\burl\(["']?)([^"')]*)`)
	absolute := regexp.MustCompile(`(?i)\b(?:https?|wss?|ftp|data|blob|javascript):[^\s"']+|["'(=]//[a-z]`)
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script(?:[^>]*)>[^<]|<iframe|<object|<embed|<base|<form[^>]*action`)
	markup := regexp.MustCompile(`\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval|Function|createContextualFragment|setHTML\w*|srcdoc|importScripts|Worker|WebSocket|EventSource|sendBeacon|XMLHttpRequest)\b\s*[(=]`)
	harmless := map[string]bool{
		"http://www.w3.org/2000/svg": true, // the name of a namespace, of which nothing is fetched
	}
	for name, data := range files {
		text := string(data)
		if !strings.HasSuffix(name, ".css") { // a comment may tell where a format is described
			text = regexp.MustCompile(`(?m)//[^"\n]*$`).ReplaceAllString(text, "")
		}
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if _, ok := files[m[1]]; !ok && !strings.HasPrefix(m[1], "#") {
				t.Errorf("%q refers to %q, which is not among the files", name, m[1])
			}
		}
		for _, m := range absolute.FindAllString(text, -1) {
			if !harmless[m] {
				t.Errorf("%q refers to %q", name, m)
			}
		}
		if m := markup.FindString(text); m != "" {
			t.Errorf("%q uses %q", name, m)
		}
		if name == "" || strings.HasSuffix(name, ".svg") {
			if m := inline.FindString(text); m != "" {
				t.Errorf("%q has %q in its markup", name, m)
			}
		}
	}
	for _, name := range []string{"", "main.js", "style.css", "icon.svg"} {
		if len(files[name]) == 0 {
			t.Errorf("there is no %q", name)
		}
	}
}

// TestEveryIDIsThere: what a script looks up in the page is in the page, once.
func TestEveryIDIsThere(t *testing.T) {
	t.Parallel()
	files := Files()
	page := string(files[""])
	seen := make(map[string]int)
	for _, m := range regexp.MustCompile(`\sid="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if seen[m[1]]++; seen[m[1]] > 1 {
			t.Errorf("the page has two elements called %q", m[1])
		}
	}
	wanted := regexp.MustCompile(`\$\("([a-z-]+)"\)|getElementById\("([a-z-]+)"\)`)
	found := 0
	for name, data := range files {
		for _, m := range wanted.FindAllStringSubmatch(string(data), -1) {
			if id := m[1] + m[2]; seen[id] == 0 {
				t.Errorf("%s looks for %q, which the page does not have", name, id)
			}
			found++
		}
	}
	for _, m := range regexp.MustCompile(`(?:for|aria-labelledby)="([^"]*)"|href="#([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if id := m[1] + m[2]; seen[id] == 0 {
			t.Errorf("the page refers to %q, which it does not have", id)
		}
	}
	if found < 40 {
		t.Errorf("only %d look-ups were found", found)
	}
}
