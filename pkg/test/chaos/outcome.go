package main

import (
	"net/http"

	"vitrine.io/pkg/test/client"
)

// outcomeUnknown reports whether the response leaves open that the request took effect.
func outcomeUnknown(r client.Response, err error) bool {
	return err != nil || r.Status >= http.StatusInternalServerError && !notApplied(r.Code())
}

// notApplied reports whether the problem code guarantees that the request had no effect.
func notApplied(code string) bool {
	switch code {
	case "database_unavailable", "shutting_down", "overloaded":
		return true
	default:
		return false
	}
}
