package chart_test

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// peer is one end of a connection: a pod, of this namespace or of one with labels, or an address outside the cluster.
type peer struct {
	name     string
	pod      *pod
	foreign  map[string]string // labels of the pod's namespace, if that is another one
	address  netip.Addr        // if it is not a pod
	protocol string            // of the connection to it; TCP if empty
	port     int32
}

// ours are the labels of the namespace of the rendered chart.
var ours = map[string]string{"kubernetes.io/metadata.name": namespace}

// selects evaluates a selector as the API server does: nil matches nothing, an empty one everything.
func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(set))
}

// matches reports whether p matches a peer of a rule. An ipBlock never matches a pod here: whether it does depends on the
// network plugin, so no rule may rely on it.
func matches(rule networkingv1.NetworkPolicyPeer, p peer) bool {
	if rule.IPBlock != nil {
		if p.pod != nil || !netip.MustParsePrefix(rule.IPBlock.CIDR).Contains(p.address) {
			return false
		}
		return !slices.ContainsFunc(rule.IPBlock.Except, func(except string) bool {
			return netip.MustParsePrefix(except).Contains(p.address)
		})
	}
	if p.pod == nil {
		return false
	}
	if rule.NamespaceSelector == nil {
		if p.foreign != nil {
			return false
		}
	} else {
		of := p.foreign
		if of == nil {
			of = ours
		}
		if !selects(rule.NamespaceSelector, of) {
			return false
		}
	}
	return rule.PodSelector == nil || selects(rule.PodSelector, p.pod.labels)
}

// opens reports whether a rule's ports include one of the target.
func opens(ports []networkingv1.NetworkPolicyPort, target *pod, protocol string, port int32) bool {
	if protocol == "" {
		protocol = "TCP"
	}
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		if p.Protocol != nil && string(*p.Protocol) != protocol || p.Protocol == nil && protocol != "TCP" {
			return false
		}
		if p.Port == nil {
			return true
		}
		number := p.Port.IntVal
		if name := p.Port.StrVal; name != "" {
			if target == nil {
				return false
			}
			found, ok := target.port(name)
			if !ok {
				return false
			}
			number = found
		}
		return number == port || p.EndPort != nil && number <= port && port <= *p.EndPort
	})
}

// policiesFor returns the policies of a type that select a pod. Without any, all connections are allowed.
func policiesFor(all []networkingv1.NetworkPolicy, p *pod, kind networkingv1.PolicyType) []networkingv1.NetworkPolicy {
	return slices.DeleteFunc(slices.Clone(all), func(policy networkingv1.NetworkPolicy) bool {
		return !slices.Contains(policy.Spec.PolicyTypes, kind) || !selects(&policy.Spec.PodSelector, p.labels)
	})
}

// out reports whether the policies allow a pod of the chart to connect to a target.
func (r rendered) out(from *pod, target peer) bool {
	about := policiesFor(r.policies, from, networkingv1.PolicyTypeEgress)
	return len(about) == 0 || slices.ContainsFunc(about, func(policy networkingv1.NetworkPolicy) bool {
		return slices.ContainsFunc(policy.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
			return opens(rule.Ports, target.pod, target.protocol, target.port) && (len(rule.To) == 0 ||
				slices.ContainsFunc(rule.To, func(to networkingv1.NetworkPolicyPeer) bool { return matches(to, target) }))
		})
	})
}

// in reports whether the policies allow a peer to connect to a port of a pod of the chart.
func (r rendered) in(from peer, target *pod, port int32) bool {
	about := policiesFor(r.policies, target, networkingv1.PolicyTypeIngress)
	return len(about) == 0 || slices.ContainsFunc(about, func(policy networkingv1.NetworkPolicy) bool {
		return slices.ContainsFunc(policy.Spec.Ingress, func(rule networkingv1.NetworkPolicyIngressRule) bool {
			return opens(rule.Ports, target, "TCP", port) && (len(rule.From) == 0 ||
				slices.ContainsFunc(rule.From, func(by networkingv1.NetworkPolicyPeer) bool { return matches(by, from) }))
		})
	})
}

// connects reports whether the policies of both ends allow a pod of the chart to connect to a target.
func (r rendered) connects(from *pod, target peer) bool {
	if !r.out(from, target) {
		return false
	}
	return target.pod == nil || target.foreign != nil || r.in(peer{pod: from}, target.pod, target.port)
}
