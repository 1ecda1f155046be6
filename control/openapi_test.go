package control

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"
)

var update = flag.Bool("update", false, "write openapi.json")

type object = map[string]any

// describe makes the document of the API from its routes and the types of its answers.
func describe() object {
	schemas, paths := object{}, object{}
	for _, r := range append(routes(), route{method: "GET", path: "/v1/openapi.json", summary: "This document", answer: map[string]any{}}) {
		content := object{"text/event-stream": object{"schema": object{"type": "string"}}}
		if !r.stream {
			content = object{"application/json": object{"schema": schemaOf(reflect.TypeOf(r.answer), schemas)}}
		}
		responses := object{
			"200":     object{"description": "done", "content": content},
			"default": object{"description": "a failure", "content": object{"application/json": object{"schema": schemaOf(reflect.TypeFor[Failure](), schemas)}}},
		}
		summary := r.summary
		switch {
		case r.clients:
			summary += ". Of clients only"
		case r.keys:
			summary += ". Of nodes with keys only"
		}
		operation := object{"summary": summary, "responses": responses}
		var parameters []any
		for _, p := range r.query {
			kind := object{"type": "string"}
			if p.number {
				kind = object{"type": "integer", "minimum": 0}
			}
			parameters = append(parameters, object{"name": p.name, "in": "query", "description": p.doc, "schema": kind})
		}
		if parameters != nil {
			operation["parameters"] = parameters
		}
		paths[r.path] = object{strings.ToLower(r.method): operation}
	}
	for _, t := range []reflect.Type{reflect.TypeFor[Sample](), reflect.TypeFor[Line](), reflect.TypeFor[Lost]()} {
		schemaOf(t, schemas)
	}
	return object{
		"openapi": "3.0.3",
		"info": object{
			"title": "cepa control API", "version": "1",
			"description": "The local API of a running node, over the Unix socket control.sock in its state folder (mode 0600), and, where control.listen is set, over a loopback port with the token in control.port. Within version 1 fields and paths may be added; none is taken away, and no meaning changes.",
		},
		"servers":    []any{object{"url": "http://127.0.0.1:9852"}},
		"security":   []any{object{"token": []any{}}, object{}},
		"paths":      paths,
		"components": object{"schemas": schemas, "securitySchemes": object{"token": object{"type": "http", "scheme": "bearer", "description": "over the port only; not over the Unix socket"}}},
	}
}

// schemaOf describes a type as encoding/json writes it.
func schemaOf(t reflect.Type, schemas object) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		return schemaOf(t.Elem(), schemas)
	case t.Kind() == reflect.Slice:
		return object{"type": "array", "items": schemaOf(t.Elem(), schemas)}
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Interface:
		return object{"type": "object"}
	case t.Kind() == reflect.Map:
		return object{"type": "object", "additionalProperties": schemaOf(t.Elem(), schemas)}
	case t.Kind() == reflect.String:
		return object{"type": "string"}
	case t.Kind() == reflect.Bool:
		return object{"type": "boolean"}
	case t.Kind() != reflect.Struct:
		return object{"type": "integer"}
	}
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	reference := object{"$ref": "#/components/schemas/" + name}
	if schemas[name] != nil {
		return reference
	}
	properties, required := object{}, []any{}
	schemas[name] = object{"type": "object", "properties": properties, "required": required}
	for f := range t.Fields() {
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "-" {
			continue
		}
		s := schemaOf(f.Type, schemas)
		if doc := f.Tag.Get("doc"); doc != "" {
			if s["$ref"] != nil {
				s = object{"allOf": []any{s}}
			}
			s["description"] = doc
		}
		properties[key] = s
		if options == "" {
			required = append(required, key)
		}
	}
	schema := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		schema["required"] = required
	}
	schemas[name] = schema
	return reference
}

// TestDocumentSaysWhatThereIs compares openapi.json with the routes and types of the API.
func TestDocumentSaysWhatThereIs(t *testing.T) {
	want, err := json.MarshalIndent(describe(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile("openapi.json"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("openapi.json is not what the API is (%v); if that is meant, run: go test ./control -run Document -update", err)
	}
}

// TestAnswersAreAsDocumented asks a server for everything, and has a validator from other hands compare each answer with
// the document that the server serves.
func TestAnswersAreAsDocumented(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Start(Options{Dir: dir, Source: newFakeClient()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	web := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "control.sock"))
	}}}
	fetch := func(method, path string) (*http.Request, *http.Response, []byte) {
		q, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:9852"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := web.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return q, r, body
	}
	_, _, text := fetch("GET", "/v1/openapi.json")
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for path, item := range doc.Paths.Map() {
		for method := range maps.Keys(item.Operations()) {
			if path == "/v1/events" {
				continue // never ends
			}
			q, r, body := fetch(method, path)
			found, params, err := router.FindRoute(q)
			if err != nil {
				t.Fatal(err)
			}
			want := http.StatusOK
			if path == "/v1/keys" { // clients have none
				want = http.StatusNotFound
			}
			if r.StatusCode != want {
				t.Errorf("%s %s: %s %s", method, path, r.Status, body)
			}
			err = openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
				RequestValidationInput: &openapi3filter.RequestValidationInput{Request: q, PathParams: params, Route: found},
				Status:                 r.StatusCode, Header: r.Header, Body: io.NopCloser(bytes.NewReader(body)),
			})
			if err != nil {
				t.Errorf("%s %s: %v", method, path, err)
			}
			asked++
		}
	}
	if asked < 11 {
		t.Errorf("only %d paths were asked", asked)
	}
}
