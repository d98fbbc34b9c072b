package scheduler

import (
	"cmp"
	"container/heap"
	"slices"

	"vitrine.io/pkg/domain/catalog"
)

// Planner shares the windows among the flows and users of one class. It remembers whose turn was when, which decides between
// equals. It is not safe for concurrent use.
type Planner struct {
	windows Windows
	turn    int64
	flows   map[Flow]int64           // the last turn of a flow that waits
	users   map[catalog.UserID]int64 // the last turn of a user that waits
}

// NewPlanner returns a planner without memory.
func NewPlanner(w Windows) *Planner {
	return &Planner{windows: w, flows: map[Flow]int64{}, users: map[catalog.UserID]int64{}}
}

// Plan returns how many jobs of each waiting flow are released: at most limit, and within what the windows leave. It adds
// them to inFlight.
func (p *Planner) Plan(waiting []Waiting, inFlight map[Flow]int, limit int) []Grant {
	total := 0
	hosts, users := map[string]int{}, map[catalog.UserID]int{}
	for f, n := range inFlight {
		total += n
		hosts[f.Host] += n
		users[f.User] += n
	}
	if limit = min(limit, p.windows.Total-total); limit <= 0 {
		return nil // the turns stay, because the search finds nothing while the window is full
	}
	grants := p.shareTotal(p.shareHosts(waiting, inFlight, hosts, limit), users, limit)
	p.forgetOthers(waiting, hosts)
	for _, g := range grants {
		inFlight[g.Flow] += g.Jobs
	}
	return grants
}

// share is what a flow gets of its host's window.
type share struct {
	Flow
	jobs     int
	inFlight int // of the flow, jobs included
	last     int64
}

// shareHosts divides the free capacity of each host among its flows: each job goes to the flow with the fewest in flight.
func (p *Planner) shareHosts(waiting []Waiting, inFlight map[Flow]int, hosts map[string]int, limit int) []share {
	byHost := map[string]*shares{}
	due := make(map[Flow]int, len(waiting))
	for _, w := range waiting {
		if w.Due == 0 || due[w.Flow] > 0 {
			continue
		}
		due[w.Flow] = w.Due
		if byHost[w.Host] == nil {
			byHost[w.Host] = &shares{}
		}
		*byHost[w.Host] = append(*byHost[w.Host], share{Flow: w.Flow, inFlight: inFlight[w.Flow], last: p.flows[w.Flow]})
	}
	var divided []share
	for host, queue := range byHost {
		heap.Init(queue)
		for free := min(limit, p.windows.Host-hosts[host]); free > 0 && queue.Len() > 0; free-- {
			next := &(*queue)[0]
			p.turn++
			next.jobs, next.inFlight, next.last = next.jobs+1, next.inFlight+1, p.turn
			if next.jobs == due[next.Flow] {
				divided = append(divided, heap.Pop(queue).(share)) //nolint:forcetypeassert,errcheck // the heap has only shares
			} else {
				heap.Fix(queue, 0)
			}
		}
		divided = append(divided, *queue...)
	}
	divided = slices.DeleteFunc(divided, func(s share) bool { return s.jobs == 0 })
	slices.SortFunc(divided, func(a, b share) int { // the order of the map is random
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Host, b.Host))
	})
	return divided
}

// turns is a user's part in shareTotal.
type turns struct {
	user     catalog.UserID
	flows    []share // with jobs left; the first is next
	inFlight int     // of the user, what is granted included
	last     int64
}

// shareTotal grants at most free jobs of the shares: each goes to the user with the fewest in flight. The user's
// flows take turns.
func (p *Planner) shareTotal(shares []share, users map[catalog.UserID]int, free int) []Grant {
	byUser := map[catalog.UserID]*turns{}
	var queue userQueue
	for _, s := range shares {
		u := byUser[s.User]
		if u == nil {
			u = &turns{user: s.User, inFlight: users[s.User], last: p.users[s.User]}
			byUser[s.User] = u
			queue = append(queue, u)
		}
		u.flows = append(u.flows, s)
	}
	for _, u := range queue {
		slices.SortStableFunc(u.flows, func(a, b share) int { return cmp.Compare(p.flows[a.Flow], p.flows[b.Flow]) })
	}
	heap.Init(&queue)
	granted := map[Flow]int{}
	for ; free > 0 && queue.Len() > 0; free-- {
		u := queue[0]
		s := u.flows[0]
		p.turn++
		granted[s.Flow]++
		p.flows[s.Flow], p.users[u.user] = p.turn, p.turn
		u.inFlight, u.last, u.flows = u.inFlight+1, p.turn, u.flows[1:]
		if s.jobs--; s.jobs > 0 {
			u.flows = append(u.flows, s)
		}
		if len(u.flows) == 0 {
			heap.Pop(&queue)
		} else {
			heap.Fix(&queue, 0)
		}
	}
	grants := make([]Grant, 0, len(granted))
	for _, s := range shares {
		if n := granted[s.Flow]; n > 0 {
			grants = append(grants, Grant{s.Flow, n})
		}
	}
	return grants
}

// forgetOthers forgets the turns of flows and users that no longer wait, so that the memory is bounded by those that do.
func (p *Planner) forgetOthers(waiting []Waiting, hosts map[string]int) {
	flows, users := make(map[Flow]int64, len(waiting)), make(map[catalog.UserID]int64, len(waiting))
	for _, w := range waiting {
		flows[w.Flow], users[w.User] = p.flows[w.Flow], p.users[w.User]
	}
	for f, turn := range p.flows { // the search finds no flows of a full host
		if hosts[f.Host] >= p.windows.Host {
			flows[f], users[f.User] = turn, p.users[f.User]
		}
	}
	p.flows, p.users = flows, users
}

// shares is a heap of the flows of a host: the fewest in flight first, then the one whose last turn is longest ago.
type shares []share

func (q shares) Len() int { return len(q) }
func (q shares) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[i].inFlight, q[j].inFlight), cmp.Compare(q[i].last, q[j].last),
		cmp.Compare(q[i].User, q[j].User)) < 0
}
func (q shares) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface; nothing is pushed.
func (q *shares) Push(x any) { *q = append(*q, x.(share)) } //nolint:forcetypeassert,errcheck // the heap has only shares

// Pop implements heap.Interface.
func (q *shares) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// userQueue is a heap of users: the fewest in flight first, then the one whose last turn is longest ago.
type userQueue []*turns

func (q userQueue) Len() int { return len(q) }
func (q userQueue) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[i].inFlight, q[j].inFlight), cmp.Compare(q[i].last, q[j].last),
		cmp.Compare(q[i].user, q[j].user)) < 0
}
func (q userQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface; nothing is pushed.
func (q *userQueue) Push(x any) { *q = append(*q, x.(*turns)) } //nolint:forcetypeassert,errcheck // the heap has only users

// Pop implements heap.Interface.
func (q *userQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
