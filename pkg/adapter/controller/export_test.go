package controller

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

// StatusOf is statusOf.
func StatusOf(obj *unstructured.Unstructured) (Status, error) { return statusOf(obj) }
