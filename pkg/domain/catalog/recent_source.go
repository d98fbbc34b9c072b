package catalog

// RecentSource is the source of an image that became ready lately, with the user it belongs to.
type RecentSource struct {
	UserID UserID
	URL    string
}
