package chart_test

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// endpoint is an address that stands in a pod's environment or arguments.
type endpoint struct {
	variable string
	host     string
	port     int32
}

func (e endpoint) String() string {
	return fmt.Sprintf("%s (%s:%d)", e.variable, e.host, e.port)
}

// endpoints reads what a pod is told of, as the programs do. Only what it connects to: VITRINE_S3_PUBLIC_URL is for clients.
func endpoints(p pod) ([]endpoint, error) {
	var all []endpoint
	add := func(variable, hostport string) error {
		host, port, err := net.SplitHostPort(hostport)
		if err != nil {
			return fmt.Errorf("%s: %w", variable, err)
		}
		number, err := strconv.ParseInt(port, 10, 32)
		if err != nil {
			return fmt.Errorf("%s: %w", variable, err)
		}
		all = append(all, endpoint{variable, host, int32(number)})
		return nil
	}
	for _, c := range p.containers() {
		env := map[string]string{}
		for _, e := range c.Env {
			env[e.Name] = e.Value
		}
		for name, value := range env {
			var err error
			switch name {
			case "VITRINE_POSTGRES_DSN":
				var dsn *url.URL
				if dsn, err = url.Parse(value); err == nil {
					err = add(name, dsn.Host)
				}
			case "VITRINE_KAFKA_BROKERS", "VITRINE_REDIS_ADDRS":
				for _, address := range strings.Split(value, ",") {
					if err = add(name, address); err != nil {
						break
					}
				}
			case "VITRINE_S3_ENDPOINT":
				err = add(name, withPort(value, ""))
			case "VITRINE_S3_REGION":
				if env["VITRINE_S3_ENDPOINT"] == "" { // AWS
					prefix := ""
					if env["VITRINE_S3_PATH_STYLE"] == "false" {
						prefix = env["VITRINE_S3_BUCKET"] + "."
					}
					err = add(name, withPort(fmt.Sprintf("https://s3.%s.amazonaws.com", value), prefix))
				}
			}
			if err != nil {
				return nil, err
			}
		}
		for _, arg := range c.Args {
			if api, ok := strings.CutPrefix(arg, "--api="); ok {
				if err := add("--api", withPort(api, "")); err != nil {
					return nil, err
				}
			}
			if _, to, ok := strings.Cut(arg, "=http"); ok && strings.HasPrefix(arg, "--rewrite=") {
				if _, to, ok = strings.Cut(to, "=http"); ok {
					if err := add("--rewrite", withPort("http"+to, "")); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	return all, nil
}

// withPort returns a URL's host and port.
func withPort(text, prefix string) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(prefix+u.Hostname(), port)
}

// operated returns the pods and Services that operators make of the custom resources, as their documentation has them.
func operated(w world) []struct {
	service string
	port    int32
	pod     pod
} {
	var all []struct {
		service string
		port    int32
		pod     pod
	}
	for _, o := range w.objects {
		switch {
		case o.Kind == "Cluster" && strings.HasPrefix(o.APIVersion, "postgresql.cnpg.io/"):
			labels := map[string]string{"cnpg.io/cluster": o.Name, "cnpg.io/instanceRole": "primary", "cnpg.io/podRole": "instance"}
			all = append(all, struct {
				service string
				port    int32
				pod     pod
			}{o.Name + "-rw", 5432, pod{owner: "Cluster " + o.Name, labels: labels}})
		case o.Kind == "Kafka" && strings.HasPrefix(o.APIVersion, "kafka.strimzi.io/"):
			labels := map[string]string{"strimzi.io/cluster": o.Name, "strimzi.io/kind": "Kafka", "strimzi.io/name": o.Name + "-kafka"}
			all = append(all, struct {
				service string
				port    int32
				pod     pod
			}{o.Name + "-kafka-bootstrap", 9093, pod{owner: "Kafka " + o.Name, labels: labels}})
		}
	}
	return all
}

// resolve returns who answers at an endpoint: pods behind a Service of this namespace, or an address. outside gives names that are
// not of the cluster addresses.
func (w world) resolve(e endpoint, outside map[string]string) ([]peer, error) {
	if address, err := netip.ParseAddr(e.host); err == nil {
		return []peer{{name: e.String(), address: address, port: e.port}}, nil
	}
	host := strings.TrimSuffix(e.host, "."+namespace+".svc")
	parts := strings.Split(host, ".")
	if service, ok := w.services[parts[len(parts)-1]]; ok && len(parts) <= 2 {
		return w.behind(service, e)
	}
	for _, o := range operated(w) {
		if o.service == host {
			if o.port != e.port {
				return nil, fmt.Errorf("%s: %s has the port %d", e, o.pod.owner, o.port)
			}
			return []peer{{name: e.String(), pod: &o.pod, port: e.port}}, nil
		}
	}
	if address, ok := outside[e.host]; ok {
		return []peer{{name: e.String(), address: netip.MustParseAddr(address), port: e.port}}, nil
	}
	return nil, fmt.Errorf("%s: nobody is called so", e)
}

func (w world) behind(service corev1.Service, e endpoint) ([]peer, error) {
	var all []peer
	for _, port := range service.Spec.Ports {
		if port.Port != e.port {
			continue
		}
		for i := range w.pods {
			if !contains(w.pods[i].labels, service.Spec.Selector) {
				continue
			}
			target := port.TargetPort.IntVal
			if name := port.TargetPort.StrVal; name != "" {
				target, _ = w.pods[i].port(name)
			}
			if target == 0 {
				target = port.Port
			}
			all = append(all, peer{name: e.String(), pod: &w.pods[i], port: target})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: the Service has no such port, or no pods", e)
	}
	return all, nil
}
