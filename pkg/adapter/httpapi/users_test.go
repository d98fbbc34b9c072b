package httpapi_test

import (
	"slices"
	"strings"
	"testing"
)

func TestUsers(t *testing.T) {
	t.Parallel()
	t.Run("create_and_get", testUsersCreateAndGet)
	t.Run("email_taken", testUsersEmailTaken)
	t.Run("unknown_id", testUsersUnknownID)
	t.Run("wrong_fields_are_listed", testUsersWrongFieldsAreListed)
}

func testUsersCreateAndGet(t *testing.T) {
	t.Parallel()
	a := start(t)
	created := a.post("/users", `{"name":"Ada & Söhne","email":"ada@example.com"}`)
	want := `{"id":1,"name":"Ada & Söhne","email":"ada@example.com","created_at":"2026-03-01T12:30:45.123456Z"}`
	if created.status != 201 || created.body != want {
		t.Errorf("created: %d %s, want 201 %s", created.status, created.body, want)
	}
	if got := created.header.Get("Location"); got != "/users/1" {
		t.Errorf("Location is %q", got)
	}
	read := a.get("/users/1")
	if read.status != 200 || read.body != want || read.header.Get("Content-Type") != "application/json" {
		t.Errorf("read: %d %s %s", read.status, read.header.Get("Content-Type"), read.body)
	}
}

func testUsersEmailTaken(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	got := a.post("/users", `{"name":"other","email":"USER1@example.com"}`)
	wants(t, got, 409, "email_taken")
}

func testUsersUnknownID(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	for _, id := range []string{"2", "0", "-1", "+1", "01", "abc", "1.0", "%31", "9223372036854775808"} {
		wants(t, a.get("/users/"+id), 404, "user_not_found")
	}
}

func testUsersWrongFieldsAreListed(t *testing.T) {
	t.Parallel()
	a := start(t)
	for body, want := range map[string][]string{
		`{}`:                                   {"/email required", "/name required"},
		`{"name":1,"email":null}`:              {"/email required", "/name wrong_type"},
		`{"name":" ","email":"invalid","x":1}`: {"/email invalid_email", "/name required", "/x unknown_field"},
		`{"Name":"A","email":"a@example.com"}`: {"/Name unknown_field", "/name required"},
		`{"name":"A","name":"B","email":"a@example.com"}`:                   {"/name repeated"},
		`{"name":"` + strings.Repeat("é", 201) + `","email":"a@b.example"}`: {"/name too_long"},
		`{"name":"a\u0000b","email":"a@b.example"}`:                         {"/name invalid_text"},
	} {
		p := wants(t, a.post("/users", body), 422, "invalid_fields")
		if got := fieldsOf(p); !slices.Equal(got, want) {
			t.Errorf("%.60s: got %v, want %v", body, got, want)
		}
	}
	if len(a.catalog.users) != 0 {
		t.Errorf("%d users were created from wrong bodies", len(a.catalog.users))
	}
}
