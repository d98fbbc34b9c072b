package catalog

import "time"

// UserID identifies a user. Zero is no user.
type UserID int64

// User owns products.
type User struct {
	ID        UserID
	Name      string
	Email     string // unique without regard to case
	CreatedAt time.Time
}
