package main

import (
	"net/http"

	"vitrine.io/pkg/test/client"
)

// unknown says whether what was asked for may or may not have happened.
func unknown(r client.Response, err error) bool {
	return err != nil || r.Status >= http.StatusInternalServerError && !surelyNot(r.Code())
}

// surelyNot are the refusals that promise that nothing has been done.
func surelyNot(code string) bool {
	switch code {
	case "database_unavailable", "shutting_down", "overloaded":
		return true
	default:
		return false
	}
}
