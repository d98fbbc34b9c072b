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
	Meant string // a variable of the program that is spelled nearly so, or ""
}

// String says so in a sentence.
func (u Unknown) String() string {
	if u.Meant == "" {
		return u.Name + " is not known to this program"
	}
	return u.Name + " is not known to this program: is " + u.Meant + " meant?"
}

// variablesOf returns the environment's variables that are set to something and begin with Prefix.
func variablesOf(environ []string) map[string]string {
	vars := map[string]string{}
	for _, line := range environ {
		if name, value, _ := strings.Cut(line, "="); strings.HasPrefix(name, Prefix) && value != "" {
			vars[name] = value
		}
	}
	return vars
}

func environmentLayer(s schema, vars map[string]string) map[string]setting {
	layer := make(map[string]setting, len(vars))
	for _, v := range s.variables {
		for _, name := range []string{v.name, v.name + fileSuffix} {
			if text, ok := vars[name]; ok {
				layer[name] = setting{label: name, text: text}
			}
		}
	}
	return layer
}

// serviceLink matches what Kubernetes puts into every container for each service of the namespace: the names of our own
// services begin with our prefix.
var serviceLink = regexp.MustCompile(`_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)

// foreign reports whether a variable is none of the program's business: tests have their own, Kubernetes has its own.
func foreign(name, value string) bool {
	return name == fileVariable || strings.HasPrefix(name, Prefix+"TEST_") || serviceLink.MatchString(name) ||
		(strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://"))
}

func unknown(s schema, vars map[string]string) []Unknown {
	known := map[string]bool{}
	for _, v := range s.variables {
		known[v.name] = true
		if v.secret {
			known[v.name+fileSuffix] = true
		}
	}
	names := slices.Sorted(maps.Keys(known))
	var found []Unknown
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if !known[name] && !foreign(name, vars[name]) {
			found = append(found, Unknown{Name: name, Meant: nearest(name, names)})
		}
	}
	return found
}

// nearest returns the name that is at most two edits away, or "".
func nearest(name string, names []string) string {
	best, least := "", 3
	for _, candidate := range names {
		if d := distance(name, candidate); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance is Levenshtein's: the least number of letters to insert, drop or change.
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
