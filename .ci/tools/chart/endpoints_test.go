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

// endpoint is an address in a pod's environment or arguments.
type endpoint struct {
	variable string
	host     string
	port     int32
}

func (e endpoint) String() string {
	return fmt.Sprintf("%s (%s:%d)", e.variable, e.host, e.port)
}

// endpoints returns the addresses to which a pod connects, as the programs read them. VITRINE_S3_PUBLIC_URL is for clients.
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

// withPort returns the host and port of a URL.
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

// operated returns the pods and Services that operators create for custom resources, according to their documentation.
func operated(r rendered) []struct {
	service string
	port    int32
	pod     pod
} {
	var all []struct {
		service string
		port    int32
		pod     pod
	}
	for _, o := range r.objects {
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

// resolve returns the peers at an endpoint: pods behind a Service of this namespace, or an address. outside has the addresses
// of names outside of the cluster.
func (r rendered) resolve(e endpoint, outside map[string]string) ([]peer, error) {
	if address, err := netip.ParseAddr(e.host); err == nil {
		return []peer{{name: e.String(), address: address, port: e.port}}, nil
	}
	host := strings.TrimSuffix(e.host, "."+namespace+".svc")
	parts := strings.Split(host, ".")
	if service, ok := r.services[parts[len(parts)-1]]; ok && len(parts) <= 2 {
		return r.behind(service, e)
	}
	for _, o := range operated(r) {
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
	return nil, fmt.Errorf("%s: the name is unknown", e)
}

func (r rendered) behind(service corev1.Service, e endpoint) ([]peer, error) {
	var all []peer
	for _, port := range service.Spec.Ports {
		if port.Port != e.port {
			continue
		}
		for i := range r.pods {
			if !contains(r.pods[i].labels, service.Spec.Selector) {
				continue
			}
			target := port.TargetPort.IntVal
			if name := port.TargetPort.StrVal; name != "" {
				target, _ = r.pods[i].port(name)
			}
			if target == 0 {
				target = port.Port
			}
			all = append(all, peer{name: e.String(), pod: &r.pods[i], port: target})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: the Service has no such port, or no pods", e)
	}
	return all, nil
}
