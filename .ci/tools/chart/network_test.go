package chart_test

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
)

// outside describes what is outside of the cluster, for one of the values files.
type outside struct {
	hosts map[string]string // addresses of the host names in the pods' configuration
	// Networks of the servers, by port. A server without one may have any address.
	networks map[int32][]string
	anywhere []int32
	// public are the ports of anywhere for public addresses, the only ones that workers may use.
	public  []int32
	extra   map[int32]string // networkPolicy.extraEgress
	dns     string           // the address of name resolution
	fromAny bool             // any pod may connect to the API
}

const nodeLocalDNS = "169.254.20.10"

var outsides = map[string]outside{
	"dev":                            {dns: nodeLocalDNS, fromAny: true},
	"dev_with_values-operators.yaml": {dns: nodeLocalDNS, fromAny: true},
	"dev_with_values-external.yaml": {
		dns: nodeLocalDNS, fromAny: true, anywhere: []int32{5432, 9093, 6379, 443},
		hosts: map[string]string{
			"postgres.example.com": "10.77.0.1", "kafka.example.com": "52.1.2.3", "redis.example.com": "192.168.7.7",
			"s3.example.com": "52.219.1.1",
		},
	},
	"everything": {dns: "10.96.0.10", fromAny: true},
	"external": {
		dns: nodeLocalDNS,
		hosts: map[string]string{
			"b-1.kafka.example.com": "10.20.1.11", "b-2.kafka.example.com": "fd00:20:1::12", "redis.example.com": "10.20.2.9",
			"store.example.com": "10.20.3.7",
		},
		networks: map[int32][]string{
			5433: {"2001:db8:5::10/128"}, 9096: {"10.20.1.0/24", "fd00:20:1::/64"}, 9097: {"10.20.1.0/24", "fd00:20:1::/64"},
			6380: {"10.20.2.0/24"}, 9443: {"10.20.3.7/32"},
		},
		extra: map[int32]string{3128: "10.9.0.0/16"},
	},
	"operators": {
		dns: nodeLocalDNS, fromAny: true, anywhere: []int32{6379, 6380, 443}, public: []int32{443},
		hosts: map[string]string{"images.s3.eu-central-1.amazonaws.com": "52.219.1.1"},
	},
	"production": {
		dns: nodeLocalDNS,
		hosts: map[string]string{
			"postgres.db.example.com": "10.20.0.5", "kafka-0.example.com": "10.20.1.5", "kafka-1.example.com": "10.20.1.6",
			"kafka-2.example.com": "10.20.1.7", "redis-0.example.com": "10.20.2.5", "redis-1.example.com": "10.20.2.6",
			"redis-2.example.com": "10.20.2.7", "s3.eu-central-1.amazonaws.com": "10.20.3.7",
		},
		networks: map[int32][]string{5432: {"10.20.0.0/24"}, 9093: {"10.20.1.0/24"}, 6379: {"10.20.2.0/24"}, 443: {"10.20.3.0/24"}},
	},
	"resource": {dns: nodeLocalDNS, fromAny: true},
	"small":    {}, // without policies
}

func TestNetworkPolicies(t *testing.T) {
	t.Parallel()
	t.Run("configured_endpoints_are_allowed", testNetworkPoliciesConfiguredEndpointsAreAllowed)
	t.Run("other_endpoints_are_denied", testNetworkPoliciesOtherEndpointsAreDenied)
	t.Run("ingress_is_limited", testNetworkPoliciesIngressIsLimited)
	t.Run("every_pod_has_a_policy", testNetworkPoliciesEveryPodHasAPolicy)
}

func testNetworkPoliciesConfiguredEndpointsAreAllowed(t *testing.T) {
	everyRender(t, func(t *testing.T, name string, r rendered) {
		out, ok := outsides[name]
		if !ok {
			t.Fatalf("outsides has no entry %q", name)
		}
		for i := range r.pods {
			p := &r.pods[i]
			configured := reachable(t, r, *p, out)
			if len(configured) == 0 && slices.Contains([]string{"api", "worker", "setup", "controller", "test"}, p.component()) {
				t.Errorf("%s: has no server in its configuration", p.owner)
			}
			for _, target := range configured {
				if !r.connects(p, target) {
					t.Errorf("%s: may not reach %s", p.owner, target.name)
				}
			}
			for _, protocol := range []string{"UDP", "TCP"} {
				dns := peer{foreign: map[string]string{"kubernetes.io/metadata.name": "kube-system"}, pod: &pod{}, protocol: protocol, port: 53}
				if out.dns != "" && out.dns != nodeLocalDNS {
					dns = peer{address: netip.MustParseAddr(out.dns), protocol: protocol, port: 53}
				}
				if !r.out(p, dns) {
					t.Errorf("%s: may not resolve names over %s", p.owner, protocol)
				}
			}
		}
	})
}

// reachable returns the peers at the endpoints in a pod's configuration.
func reachable(t *testing.T, r rendered, p pod, out outside) []peer {
	t.Helper()
	addresses, err := endpoints(p)
	if err != nil {
		t.Fatalf("%s: %v", p.owner, err)
	}
	var all []peer
	for _, e := range addresses {
		found, err := r.resolve(e, out.hosts)
		if err != nil {
			t.Errorf("%s: %v", p.owner, err)
		}
		all = append(all, found...)
	}
	return all
}

func testNetworkPoliciesOtherEndpointsAreDenied(t *testing.T) {
	everyRender(t, func(t *testing.T, name string, r rendered) {
		if name == "small" {
			if len(r.policies) != 0 {
				t.Error("there are policies although networkPolicy.enabled is false")
			}
			return
		}
		out := outsides[name]
		spec := boundsOf(t, r)
		for i := range r.pods {
			p := &r.pods[i]
			configured := reachable(t, r, *p, out)
			for _, target := range candidates(r, configured) {
				want := expected(*p, target, configured, out, spec)
				if got := r.connects(p, target); got && !want {
					t.Errorf("%s: may reach %s", p.owner, target.name)
				} else if !got && want {
					t.Errorf("%s: may not reach %s", p.owner, target.name)
				}
			}
		}
	})
}

// bounds are those of pipelines, which limit the downloads of workers.
type bounds struct {
	networks []string
	ports    []int32
}

// boundsOf returns the bounds in the environment of the workers.
func boundsOf(t *testing.T, r rendered) bounds {
	t.Helper()
	for i := range r.pods {
		if r.pods[i].component() != "worker" {
			continue
		}
		var b bounds
		for _, v := range r.pods[i].spec.Containers[0].Env {
			list := strings.FieldsFunc(v.Value, func(c rune) bool { return c == ',' })
			switch v.Name {
			case "VITRINE_PIPELINE_ALLOW_CIDRS":
				b.networks = list
			case "VITRINE_PIPELINE_ALLOW_PORTS":
				for _, text := range list {
					port, err := strconv.ParseInt(text, 10, 32)
					if err != nil {
						t.Fatal(err)
					}
					b.ports = append(b.ports, int32(port))
				}
			}
		}
		return b
	}
	t.Fatal("there is no worker")
	return bounds{}
}

// metadata are the addresses of the clouds' metadata services, which return secrets.
var metadata = []string{
	"169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
}

// special are networks without public image servers, in addition to those of [netip.Addr.IsPrivate] and similar methods.
var special = []string{
	"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"240.0.0.0/4", "64:ff9b::/96", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "168.63.129.16/32",
}

func within(address netip.Addr, networks []string) bool {
	return slices.ContainsFunc(networks, func(n string) bool { return netip.MustParsePrefix(n).Contains(address) })
}

// expected reports whether a connection should be allowed. It follows from the pods' configuration only, not from policies.
func expected(p pod, target peer, configured []peer, out outside, spec bounds) bool {
	if target.port == 53 && target.foreign["kubernetes.io/metadata.name"] == "kube-system" {
		return out.dns == nodeLocalDNS
	}
	if target.port == 53 && target.address.IsValid() && target.address.String() == out.dns {
		return true
	}
	if target.protocol == "UDP" {
		return p.component() == "worker" && target.pod == nil && within(target.address, spec.networks)
	}
	for _, t := range configured {
		if t.port == target.port && (t.pod == nil) == (target.pod == nil) &&
			(t.pod == nil && t.address == target.address || t.pod != nil && t.pod.owner == target.pod.owner) {
			return true
		}
	}
	if target.pod != nil {
		return expectedPod(p, target, out)
	}
	return expectedAddress(p, target, out, spec)
}

func expectedPod(p pod, target peer, out outside) bool {
	if p.component() == "test" && out.hosts != nil && (target.port == 80 || target.port == 443) {
		return true // from an Ingress controller
	}
	if target.foreign != nil {
		return false
	}
	switch p.component() {
	case "postgres", "kafka", "redis", "minio": // the members of a cluster connect to each other
		return target.pod.component() == p.component()
	case "worker":
		return target.pod.component() == "test" && target.port == 8081
	}
	return false
}

func expectedAddress(p pod, target peer, out outside, spec bounds) bool {
	address, port := target.address, target.port
	inner := slices.Contains([]string{"api", "worker", "setup"}, p.component())
	public := address.IsGlobalUnicast() && !address.IsPrivate() && !within(address, special)
	switch {
	case p.component() == "controller":
		return (port == 443 || port == 6443) && within(address, []string{"10.96.0.1/32", "10.9.0.0/16"}) // the API server
	case p.component() == "worker" && slices.Contains(out.public, port):
		return public || within(address, spec.networks)
	case inner && slices.Contains(out.anywhere, port) && !within(address, metadata):
		// A server that may have any address. Setup does not use Redis.
		return p.component() != "setup" || port != 6379 && port != 6380
	case inner && within(address, out.networks[port]):
		return p.component() != "setup" || port != 6379 && port != 6380
	case inner && out.extra[port] != "" && within(address, []string{out.extra[port]}):
		return true
	case p.component() == "worker":
		return public && slices.Contains(spec.ports, port) || within(address, spec.networks)
	case p.component() == "test": // it downloads images, as clients do

		return out.hosts != nil && (port == 80 || port == 443) && !within(address, metadata)
	}
	return false
}

// candidates are all ports of all pods, and addresses and ports most of which should not be reachable.
func candidates(r rendered, configured []peer) []peer {
	var all []peer
	ports := []int32{22, 53, 80, 443, 3128, 5432, 5433, 6379, 6380, 8080, 8443, 9000, 9093, 9096, 9443}
	for i := range r.pods {
		for _, c := range r.pods[i].containers() {
			for _, port := range c.Ports {
				all = append(all, peer{name: r.pods[i].owner + ":" + port.Name, pod: &r.pods[i], port: port.ContainerPort})
			}
		}
	}
	for _, name := range []string{"kube-system", "monitoring", "other"} {
		for _, port := range ports {
			all = append(all, peer{
				name: name + "/pod:" + itoa(port), pod: &pod{labels: map[string]string{"app": "x"}},
				foreign: map[string]string{"kubernetes.io/metadata.name": name}, port: port,
			})
		}
	}
	addresses := strings.Fields(`1.1.1.1 52.219.1.1 8.8.8.8 10.0.0.1 10.9.0.1 10.20.0.5 10.20.1.11 10.20.2.9 10.20.2.10 10.20.3.7 10.20.3.8
		10.96.0.1 10.96.0.10 172.16.0.1 172.31.255.254 192.168.1.1 100.64.0.1 100.100.100.200 127.0.0.1 169.254.169.254 169.254.170.2
		10.255.255.254 100.127.255.254 192.168.255.254 198.19.255.254 169.254.255.254 172.15.255.254 172.32.0.1 11.0.0.1 9.255.255.254
		169.254.20.10 168.63.129.16 192.0.0.192 0.0.0.1 224.0.0.1 255.255.255.255 198.18.0.1 203.0.113.1
		2606:4700::1111 ::1 fd00:ec2::254 fd12::1 fe80::1 ff02::1 2001:db8:5::10 2001:db8:5::11 fd00:20:1::12 64:ff9b::a00:1 2002:a00:1::1`)
	for _, text := range addresses {
		for _, port := range ports {
			address := netip.MustParseAddr(text)
			all = append(all, peer{name: netip.AddrPortFrom(address, uint16(port)).String(), address: address, port: port})
		}
		all = append(all, peer{name: "UDP " + text + ":443", address: netip.MustParseAddr(text), port: 443, protocol: "UDP"})
	}
	return append(all, configured...)
}

func itoa(n int32) string { return strconv.Itoa(int(n)) }

// Pods of other namespaces may connect only as follows: clients to the API, Prometheus to the admin ports, KEDA to the brokers,
// and all pods to the images.
func testNetworkPoliciesIngressIsLimited(t *testing.T) {
	everyRender(t, func(t *testing.T, name string, r rendered) {
		if name == "small" {
			return
		}
		for _, from := range []string{"other", "monitoring", "keda", "ingress-nginx", "kube-system"} {
			client := peer{pod: &pod{labels: map[string]string{"app": "x"}}, foreign: map[string]string{"kubernetes.io/metadata.name": from}}
			for i := range r.pods {
				p := &r.pods[i]
				for _, c := range p.containers() {
					for _, port := range c.Ports {
						want := expectedIngress(name, p.component(), port.Name, from)
						if got := r.in(client, p, port.ContainerPort); got != want {
							t.Errorf("from %s to %s:%s: got %v, want %v", from, p.owner, port.Name, got, want)
						}
					}
				}
			}
		}
	})
}

func expectedIngress(name, component, port, from string) bool {
	switch component + ":" + port {
	case "api:http":
		return outsides[name].fromAny || from == "ingress-nginx"
	case "api:admin", "worker:admin", "controller:admin":
		return from == "monitoring" && name != "everything"
	case "kafka:kafka":
		return from == "keda"
	case "minio:s3":
		return true
	}
	return false
}

// A pod without a policy may connect to everything.
func testNetworkPoliciesEveryPodHasAPolicy(t *testing.T) {
	everyRender(t, func(t *testing.T, name string, r rendered) {
		for i := range r.pods {
			for _, kind := range []networkingv1.PolicyType{"Ingress", "Egress"} {
				if name != "small" && len(policiesFor(r.policies, &r.pods[i], kind)) == 0 {
					t.Errorf("%s: no policy limits its %s", r.pods[i].owner, kind)
				}
			}
		}
	})
}
