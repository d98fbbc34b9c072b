package chart_test

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// outside is what is not of the cluster, for one of the values files.
type outside struct {
	hosts map[string]string // addresses of the names that pods are told
	// networks of the servers, by port; a server with none may be anywhere.
	networks map[int32][]string
	anywhere []int32
	// public are those of anywhere that are in the world, which is all that workers may take them for.
	public  []int32
	extra   map[int32]string // networkPolicy.extraEgress
	dns     string           // the address of name resolution
	fromAny bool             // anybody may connect to the API
}

const nodeLocalDNS = "169.254.20.10"

var outsides = map[string]outside{
	"dev":                            {dns: nodeLocalDNS, fromAny: true},
	"dev with values-operators.yaml": {dns: nodeLocalDNS, fromAny: true},
	"dev with values-external.yaml": {
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
	"small": {}, // has no policies
}

func TestNetworkPolicies(t *testing.T) {
	t.Parallel()
	t.Run("configured_endpoints_are_allowed", testNetworkPoliciesConfiguredEndpointsAreAllowed)
	t.Run("other_endpoints_are_denied", testNetworkPoliciesOtherEndpointsAreDenied)
	t.Run("ingress_is_limited", testNetworkPoliciesIngressIsLimited)
	t.Run("every_pod_has_a_policy", testNetworkPoliciesEveryPodHasAPolicy)
}

func testNetworkPoliciesConfiguredEndpointsAreAllowed(t *testing.T) {
	everyRender(t, func(t *testing.T, name string, w world) {
		out, ok := outsides[name]
		if !ok {
			t.Fatalf("outsides says nothing of %q", name)
		}
		for i := range w.pods {
			p := &w.pods[i]
			told := reachable(t, w, *p, out)
			if len(told) == 0 && slices.Contains([]string{"api", "worker", "setup", "test"}, p.component()) {
				t.Errorf("%s: is told of no server", p.owner)
			}
			for _, target := range told {
				if !w.connects(p, target) {
					t.Errorf("%s: may not reach %s", p.owner, target.name)
				}
			}
			for _, protocol := range []string{"UDP", "TCP"} {
				dns := peer{foreign: map[string]string{"kubernetes.io/metadata.name": "kube-system"}, pod: &pod{}, protocol: protocol, port: 53}
				if out.dns != "" && out.dns != nodeLocalDNS {
					dns = peer{address: netip.MustParseAddr(out.dns), protocol: protocol, port: 53}
				}
				if !w.out(p, dns) {
					t.Errorf("%s: may not ask for names by %s", p.owner, protocol)
				}
			}
		}
	})
}

// reachable returns who answers at what a pod is told.
func reachable(t *testing.T, w world, p pod, out outside) []peer {
	t.Helper()
	told, err := endpoints(p)
	if err != nil {
		t.Fatalf("%s: %v", p.owner, err)
	}
	var all []peer
	for _, e := range told {
		found, err := w.resolve(e, out.hosts)
		if err != nil {
			t.Errorf("%s: %v", p.owner, err)
		}
		all = append(all, found...)
	}
	return all
}

func testNetworkPoliciesOtherEndpointsAreDenied(t *testing.T) {
	everyRender(t, func(t *testing.T, name string, w world) {
		if name == "small" {
			if len(w.policies) != 0 {
				t.Error("networkPolicy.enabled is false, and there are policies")
			}
			return
		}
		out := outsides[name]
		spec := fetching(t, w)
		for i := range w.pods {
			p := &w.pods[i]
			told := reachable(t, w, *p, out)
			for _, target := range candidates(w, told) {
				want := expected(*p, target, told, out, spec)
				if got := w.connects(p, target); got && !want {
					t.Errorf("%s: may reach %s", p.owner, target.name)
				} else if !got && want {
					t.Errorf("%s: may not reach %s", p.owner, target.name)
				}
			}
		}
	})
}

// fetch is the part of the ImagePipeline that says what workers may download.
type fetch struct {
	AllowCIDRs []string `json:"allowCIDRs"`
	AllowPorts []int32  `json:"allowPorts"`
}

func fetching(t *testing.T, w world) fetch {
	t.Helper()
	for _, o := range w.objects {
		if o.Kind != "ConfigMap" || !strings.HasSuffix(o.Name, "-pipeline") {
			continue
		}
		var pipeline struct {
			Spec struct {
				Fetch fetch `json:"fetch"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal([]byte(as[corev1.ConfigMap](t, o).Data["imagepipeline.yaml"]), &pipeline); err != nil {
			t.Fatal(err)
		}
		return pipeline.Spec.Fetch
	}
	t.Fatal("there is no ImagePipeline")
	return fetch{}
}

// metadata are the addresses at which clouds tell their machines secrets.
var metadata = []string{
	"169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
}

// special are networks that nobody's pictures are in, as far as they are not [netip.Addr]'s IsPrivate and the like.
var special = []string{
	"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"240.0.0.0/4", "64:ff9b::/96", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "168.63.129.16/32",
}

func within(address netip.Addr, networks []string) bool {
	return slices.ContainsFunc(networks, func(n string) bool { return netip.MustParsePrefix(n).Contains(address) })
}

// expected says what this chart promises, from what pods are told and nothing that is in a policy.
func expected(p pod, target peer, told []peer, out outside, spec fetch) bool {
	if target.port == 53 && target.foreign["kubernetes.io/metadata.name"] == "kube-system" {
		return out.dns == nodeLocalDNS
	}
	if target.port == 53 && target.address.IsValid() && target.address.String() == out.dns {
		return true
	}
	if target.protocol == "UDP" {
		return p.component() == "worker" && target.pod == nil && within(target.address, spec.AllowCIDRs)
	}
	for _, t := range told {
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
		return true // an Ingress controller
	}
	if target.foreign != nil {
		return false
	}
	switch p.component() {
	case "postgres", "kafka", "redis", "minio": // the members of a cluster are each other's
		return target.pod.component() == p.component()
	case "worker":
		return target.pod.component() == "test" && target.port == 8081
	}
	return false
}

func expectedAddress(p pod, target peer, out outside, spec fetch) bool {
	address, port := target.address, target.port
	inner := slices.Contains([]string{"api", "worker", "setup"}, p.component())
	public := address.IsGlobalUnicast() && !address.IsPrivate() && !within(address, special)
	switch {
	case p.component() == "worker" && slices.Contains(out.public, port):
		return public || within(address, spec.AllowCIDRs)
	case inner && slices.Contains(out.anywhere, port) && !within(address, metadata):
		// A server that may be anywhere. Setup has nothing to do with Redis.
		return p.component() != "setup" || port != 6379 && port != 6380
	case inner && within(address, out.networks[port]):
		return p.component() != "setup" || port != 6379 && port != 6380
	case inner && out.extra[port] != "" && within(address, []string{out.extra[port]}):
		return true
	case p.component() == "worker":
		return public && slices.Contains(spec.AllowPorts, port) || within(address, spec.AllowCIDRs)
	case p.component() == "test": // it downloads pictures, as clients do

		return out.hosts != nil && (port == 80 || port == 443) && !within(address, metadata)
	}
	return false
}

// candidates are all ports of all pods, and addresses and ports of which most should be out of reach.
func candidates(w world, told []peer) []peer {
	var all []peer
	ports := []int32{22, 53, 80, 443, 3128, 5432, 5433, 6379, 6380, 8080, 8443, 9000, 9093, 9096, 9443}
	for i := range w.pods {
		for _, c := range w.pods[i].containers() {
			for _, port := range c.Ports {
				all = append(all, peer{name: w.pods[i].owner + ":" + port.Name, pod: &w.pods[i], port: port.ContainerPort})
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
	return append(all, told...)
}

func itoa(n int32) string { return strconv.Itoa(int(n)) }

// Who may come in from other namespaces: clients to the API, Prometheus to the admin ports, KEDA to the brokers, and everybody to the
// pictures.
func testNetworkPoliciesIngressIsLimited(t *testing.T) {
	everyRender(t, func(t *testing.T, name string, w world) {
		if name == "small" {
			return
		}
		for _, from := range []string{"other", "monitoring", "keda", "ingress-nginx", "kube-system"} {
			visitor := peer{pod: &pod{labels: map[string]string{"app": "x"}}, foreign: map[string]string{"kubernetes.io/metadata.name": from}}
			for i := range w.pods {
				p := &w.pods[i]
				for _, c := range p.containers() {
					for _, port := range c.Ports {
						want := welcome(name, p.component(), port.Name, from)
						if got := w.in(visitor, p, port.ContainerPort); got != want {
							t.Errorf("from %s to %s:%s: got %v, want %v", from, p.owner, port.Name, got, want)
						}
					}
				}
			}
		}
	})
}

func welcome(name, component, port, from string) bool {
	switch component + ":" + port {
	case "api:http":
		return outsides[name].fromAny || from == "ingress-nginx"
	case "api:admin", "worker:admin":
		return from == "monitoring" && name != "everything"
	case "kafka:kafka":
		return from == "keda"
	case "minio:s3":
		return true
	}
	return false
}

// A pod that no policy is about may do everything.
func testNetworkPoliciesEveryPodHasAPolicy(t *testing.T) {
	everyRender(t, func(t *testing.T, name string, w world) {
		for i := range w.pods {
			for _, kind := range []networkingv1.PolicyType{"Ingress", "Egress"} {
				if name != "small" && len(policiesFor(w.policies, &w.pods[i], kind)) == 0 {
					t.Errorf("%s: nothing restrains its %s", w.pods[i].owner, kind)
				}
			}
		}
	})
}
