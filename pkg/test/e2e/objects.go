package main

import (
	"slices"
	"time"
)

// The types contain the fields of Kubernetes' objects that the stages use.

type list[T any] struct {
	Items []T `json:"items"`
}

type meta struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	UID         string            `json:"uid"`
	DeletedAt   *time.Time        `json:"deletionTimestamp"`
}

type node struct {
	Status struct {
		Images []struct {
			Names []string `json:"names"`
		} `json:"images"`
		Capacity map[string]string `json:"capacity"`
	} `json:"status"`
}

type namespace struct {
	Metadata meta `json:"metadata"`
}

type container struct {
	Name  string `json:"name"`
	Image string `json:"image"`
	Ports []struct {
		Name          string `json:"name"`
		ContainerPort int    `json:"containerPort"`
	} `json:"ports"`
}

type containerStatus struct {
	Name         string `json:"name"`
	RestartCount int    `json:"restartCount"`
}

type pod struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		InitContainers []container `json:"initContainers"`
		Containers     []container `json:"containers"`
	} `json:"spec"`
	Status struct {
		Phase      string `json:"phase"`
		PodIP      string `json:"podIP"`
		Conditions []struct {
			Type   string    `json:"type"`
			Status string    `json:"status"`
			Since  time.Time `json:"lastTransitionTime"`
		} `json:"conditions"`
		InitContainerStatuses []containerStatus `json:"initContainerStatuses"`
		ContainerStatuses     []containerStatus `json:"containerStatuses"`
	} `json:"status"`
}

// ready reports whether the pod is ready and is not being deleted.
func (p pod) ready() bool {
	_, ready := p.readySince()
	return ready && p.Metadata.DeletedAt == nil
}

// readySince returns when the pod became ready, in whole seconds, and whether it is ready.
func (p pod) readySince() (since time.Time, ready bool) {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Since, c.Status == "True"
		}
	}
	return time.Time{}, false
}

// restarts returns the number of restarts of the pod's containers.
func (p pod) restarts() int {
	n := 0
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		n += s.RestartCount
	}
	return n
}

// port returns the number of the container port called name, 0 if there is none.
func (p pod) port(name string) int {
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name == name {
				return port.ContainerPort
			}
		}
	}
	return 0
}

// workload is a Deployment or a StatefulSet.
type workload struct {
	Kind     string `json:"kind"`
	Metadata meta   `json:"metadata"`
	Spec     struct {
		Replicas *int `json:"replicas"`
	} `json:"spec"`
	Status struct {
		ReadyReplicas int `json:"readyReplicas"`
	} `json:"status"`
}

// complete reports whether all replicas are ready.
func (w workload) complete() bool {
	return w.Spec.Replicas == nil || w.Status.ReadyReplicas == *w.Spec.Replicas
}

// cluster is a Cluster of CloudNativePG.
type cluster struct {
	Spec struct {
		Instances int `json:"instances"`
	} `json:"spec"`
	Status struct {
		CurrentPrimary string `json:"currentPrimary"`
		ReadyInstances int    `json:"readyInstances"`
	} `json:"status"`
}

type scaledObject struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		Min *int `json:"minReplicaCount"`
		Max *int `json:"maxReplicaCount"`
	} `json:"spec"`
}

type configMap struct {
	Metadata meta              `json:"metadata"`
	Data     map[string]string `json:"data"`
}

type service struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		ClusterIP string        `json:"clusterIP"`
		Ports     []servicePort `json:"ports"`
	} `json:"spec"`
}

type servicePort struct {
	Name string `json:"name"`
	Port int    `json:"port"`
}

type ingress struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		Rules []ingressRule `json:"rules"`
	} `json:"spec"`
}

type ingressRule struct {
	Host string `json:"host"`
	HTTP struct {
		Paths []ingressPath `json:"paths"`
	} `json:"http"`
}

type ingressPath struct {
	Path     string `json:"path"`
	PathType string `json:"pathType"`
	Backend  struct {
		Service struct {
			Name string `json:"name"`
			Port struct {
				Name   string `json:"name"`
				Number int    `json:"number"`
			} `json:"port"`
		} `json:"service"`
	} `json:"backend"`
}
