package control

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// document is the description of the API, which a test compares with the API.
//
//go:embed openapi.json
var document []byte

// handler answers requests of those who may make them.
func handler(src Source) http.Handler {
	mux := http.NewServeMux()
	allowed := make(map[string]string)
	for _, r := range routes() {
		allowed[r.path] = r.method
		mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, q *http.Request) {
			if r.stream {
				serveEvents(w, q, src)
				return
			}
			ctx, cancel := context.WithTimeout(q.Context(), answerTimeout)
			defer cancel()
			v, err := r.call(ctx, src, q.URL.Query())
			if err != nil {
				status := statusOf(err)
				switch {
				case errors.Is(err, errNotHere) && r.clients:
					err = fmt.Errorf("%s: only a client has that", r.path)
				case errors.Is(err, errNotHere):
					err = fmt.Errorf("%s: %w", r.path, err)
				}
				refuse(w, status, err.Error())
				return
			}
			answer(w, http.StatusOK, v)
		})
	}
	mux.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(document)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, q *http.Request) {
		if method, ok := allowed[q.URL.Path]; ok {
			w.Header().Set("Allow", method)
			refuse(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s takes %s, not %s", q.URL.Path, method, q.Method))
			return
		}
		refuse(w, http.StatusNotFound, "there is nothing here; GET /v1/openapi.json says what there is")
	})
	return mux
}

func answer(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the reader may be gone
}

func refuse(w http.ResponseWriter, status int, text string) { answer(w, status, Failure{text}) }

const (
	eventWrite     = 10 * time.Second // for a reader to take what is written
	eventHeartbeat = 15 * time.Second // between comments, when nothing happens
)

// serveEvents sends events until the reader or the node goes.
func serveEvents(w http.ResponseWriter, q *http.Request, src Source) {
	n, ok := src.(Node)
	if !ok {
		refuse(w, http.StatusNotFound, "/v1/events: "+errNotHere.Error())
		return
	}
	var kinds [5]bool
	names := eventKinds
	if text := q.URL.Query().Get("kinds"); text != "" {
		names = strings.Split(text, ",")
	}
	for _, name := range names {
		i := kindIndex(name)
		if i < 0 {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("there is no kind of event %q: there are %s", name, strings.Join(eventKinds, ", ")))
			return
		}
		kinds[i] = true
	}
	hub := n.Hub()
	r := hub.subscribe(kinds)
	if r == nil {
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("%d programs read events already; close one", maxReaders))
		return
	}
	defer hub.unsubscribe(r)
	out := &eventWriter{w: w, control: http.NewResponseController(w)}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if slices.Contains(names, EventStatus) {
		ctx, cancel := context.WithTimeout(q.Context(), answerTimeout)
		s, err := src.Status(ctx)
		cancel()
		if err == nil {
			out.event(Event{EventStatus, s})
		}
	}
	out.write(": begun\n\n")
	beat := time.NewTicker(eventHeartbeat)
	defer beat.Stop()
	for out.err == nil {
		select {
		case e := <-r.queue:
			out.event(e)
			if len(r.queue) == 0 {
				if lost := r.lost.Swap(0); lost > 0 {
					out.event(Event{EventLost, Lost{lost}})
				}
			}
		case <-beat.C:
			out.write(": nothing happens\n\n")
		case <-q.Context().Done():
			return
		}
	}
}

// eventWriter writes events, each within its time.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	err     error
}

func (o *eventWriter) event(e Event) {
	data, err := json.Marshal(e.Data)
	if err != nil {
		o.err = err
		return
	}
	o.write("event: " + e.Kind + "\ndata: " + string(data) + "\n\n")
}

func (o *eventWriter) write(text string) {
	if o.err != nil {
		return
	}
	_ = o.control.SetWriteDeadline(time.Now().Add(eventWrite))
	if _, o.err = o.w.Write([]byte(text)); o.err == nil {
		o.err = o.control.Flush()
	}
}
