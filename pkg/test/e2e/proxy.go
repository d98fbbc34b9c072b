package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
)

// route is one path of an Ingress, in the form of the proxy's flag.
type route struct {
	Host  string `json:"host"` // empty: any
	Path  string `json:"path"`
	Exact bool   `json:"exact"`
	To    string `json:"to"` // URL of the Service
}

// routesOf returns the paths of ingresses in the order of matching: exact paths first, then longer before shorter ones.
func routesOf(ingresses []ingress, services []service) ([]route, error) {
	var routes []route
	for _, i := range ingresses {
		for _, rule := range i.Spec.Rules {
			for _, p := range rule.HTTP.Paths {
				backend := p.Backend.Service
				port := backend.Port.Number
				if port == 0 {
					port = portOf(services, backend.Name, backend.Port.Name)
				}
				if port == 0 {
					return nil, fmt.Errorf("ingress %s: service %s has no port %q", i.Metadata.Name, backend.Name, backend.Port.Name)
				}
				routes = append(routes, route{
					Host: rule.Host, Path: p.Path, Exact: p.PathType == "Exact", To: fmt.Sprintf("http://%s:%d", backend.Name, port),
				})
			}
		}
	}
	slices.SortStableFunc(routes, func(a, b route) int {
		if a.Exact != b.Exact {
			return map[bool]int{true: -1, false: 1}[a.Exact]
		}
		return cmp.Compare(len(b.Path), len(a.Path))
	})
	return routes, nil
}

func portOf(services []service, name, port string) int {
	for _, s := range services {
		for _, p := range s.Spec.Ports {
			if s.Metadata.Name == name && p.Name == port {
				return p.Port
			}
		}
	}
	return 0
}

// matches reports whether the route matches a request. A prefix matches whole path elements.
func (r route) matches(host, path string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if r.Host != "" && !strings.EqualFold(r.Host, host) {
		return false
	}
	prefix := strings.TrimSuffix(r.Path, "/")
	return path == r.Path || path == prefix && !r.Exact || !r.Exact && strings.HasPrefix(path, prefix+"/")
}

// newProxy forwards requests by the routes, as an ingress controller does. A request without a route gets 404. It does not
// change the path and the Host header.
func newProxy(routes []route) (http.Handler, error) {
	proxies := make([]*httputil.ReverseProxy, len(routes))
	for i, r := range routes {
		target, err := url.Parse(r.To)
		if err != nil {
			return nil, err
		}
		proxies[i] = &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.SetXForwarded()
			p.Out.Host = p.In.Host
		}}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /e2e/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		for i, route := range routes {
			if route.matches(r.Host, r.URL.Path) {
				proxies[i].ServeHTTP(w, r)
				return
			}
		}
		http.NotFound(w, r)
	})
	return mux, nil
}

func runProxy(ctx context.Context, flags *flag.FlagSet, args []string) error {
	addr := flags.String("addr", ":8080", "address to listen on")
	text := flags.String("routes", "[]", "routes, as JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var routes []route
	if err := json.Unmarshal([]byte(*text), &routes); err != nil {
		return fmt.Errorf("read routes: %w", err)
	}
	handler, err := newProxy(routes)
	if err != nil {
		return err
	}
	return serve(ctx, *addr, handler)
}
