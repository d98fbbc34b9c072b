package main

import (
	"net/http"

	"vitrine.io/pkg/test/client"
)

// outcomeUnknown says whether what was asked for may or may not have happened.
func outcomeUnknown(r client.Response, err error) bool {
	return err != nil || r.Status >= http.StatusInternalServerError && !notApplied(r.Code())
}

// notApplied are the refusals that promise that nothing has been done.
func notApplied(code string) bool {
	switch code {
	case "database_unavailable", "shutting_down", "overloaded":
		return true
	default:
		return false
	}
}
