package catalog

import (
	"time"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// UserID identifies a user. Zero is no user.
type UserID int64

// User owns products.
type User struct {
	ID        UserID
	Name      string
	Email     string // as the client wrote it; unique by EmailKey
	CreatedAt time.Time
}

// EmailKey returns the text by which e-mail addresses are compared: addresses that differ only in case, or in how Unicode
// composes their letters, have the same key. It follows the canonical caseless match of Unicode (full case folding, then
// NFC), so "ß" equals "SS". It does not depend on a database, whose own functions compare by the locale of the database.
func EmailKey(email string) string {
	return norm.NFC.String(cases.Fold().String(norm.NFD.String(email)))
}
