package scheduler

// Windows bound the jobs in flight: those that are released and have not ended.
type Windows struct {
	Host  int // of one host
	Total int
}
