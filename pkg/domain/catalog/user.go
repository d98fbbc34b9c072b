package catalog

import "time"

// UserID names a user. Zero is no user.
type UserID int64

// User is who owns products.
type User struct {
	ID        UserID
	Name      string
	Email     string // unique, whatever its case
	CreatedAt time.Time
}
