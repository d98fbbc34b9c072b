package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Unknown is a VITRINE_ variable that the program does not know.
type Unknown struct {
	Name  string
	Meant string // a variable of the program with a similar name, or ""
}

// String returns a sentence for the log.
func (u Unknown) String() string {
	if u.Meant == "" {
		return u.Name + " is not known to this program"
	}
	return u.Name + " is not known to this program: is " + u.Meant + " meant?"
}

// variablesOf returns the environment's variables that are not empty and begin with Prefix.
func variablesOf(environ []string) map[string]string {
	vars := map[string]string{}
	for _, line := range environ {
		if name, value, _ := strings.Cut(line, "="); strings.HasPrefix(name, Prefix) && value != "" {
			vars[name] = value
		}
	}
	return vars
}

func environmentLayer(vars map[string]string) map[string]setting {
	layer := make(map[string]setting, len(vars))
	for name, text := range vars {
		layer[name] = setting{label: name, text: text}
	}
	return layer
}

// serviceLink matches the variables that Kubernetes sets in every container for each service of the namespace. Those of
// Vitrine's services begin with Prefix.
var serviceLink = regexp.MustCompile(`_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)

// ignored reports whether a variable is not a setting: tests and Kubernetes have variables with the same prefix.
func ignored(name, value string) bool {
	return name == fileVariable || strings.HasPrefix(name, Prefix+"TEST_") || serviceLink.MatchString(name) ||
		(strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://"))
}

func unknown(s schema, vars map[string]string) []Unknown {
	var known []string
	for _, v := range s.variables {
		known = append(known, v.names()...)
	}
	slices.Sort(known)
	var found []Unknown
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if !slices.Contains(known, name) && !ignored(name, vars[name]) {
			found = append(found, Unknown{Name: name, Meant: nearest(name, known)})
		}
	}
	return found
}

// nearest returns the name that is at most two edits away, or "".
func nearest(name string, names []string) string {
	best, bestDistance := "", 3
	for _, candidate := range names {
		if d := distance(name, candidate); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance returns the Levenshtein distance: the number of bytes to insert, delete or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
