package pkg_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// oldWords are words of an earlier vocabulary, each with the term of docs/glossary.md that replaces it.
var oldWords = map[string]string{
	"airport": "batcher", "compensator": "garbage collector", "condemn": "schedule the deletion", "condemned": "scheduled",
	"doom": "start the deletion", "doomed": "deletion started", "dooms": "starts the deletion", "fence": "fencing token",
	"fences": "fencing tokens", "intent": "scheduled deletion", "intents": "scheduled deletions", "killers": "poison content",
	"nobody": "no client, no process ...", "nursery": "fork thread", "picture": "image", "pictures": "images",
	"sweeper": "rescuer or cleaner", "sweepers": "rescuer and cleaner", "testenv": "servers", "ticket": "job id",
	"tickets": "job ids", "whatever": "any", "whoever": "the caller, the client ...",
}

// keptWords are places where an old word is data, or says what a former name has become. A file is a path or a directory.
var keptWords = []struct {
	file  string
	words []string
}{
	{"CHANGELOG.md", nil},                 // maps former names to present ones
	{"migrations/", nil},                  // former names in what was applied
	{"pkg/words_test.go", nil},            // this list
	{"go.sum", nil},                       // checksums
	{"LICENSE", nil},                      // not ours
	{"docs/e2e.md", []string{"pictures"}}, // rows measured before the rename
	{"pkg/adapter/postgres/migrate_test.go", []string{"intents"}}, // a table of the second migration
}

// dataWords finds old words that are data: the field of an event, the input of a UUID, an HTML element, the wrapping of
// code in Markdown, and a user of Unix.
var dataWords = regexp.MustCompile("\"fence\"|`fence`|/fences?/|<picture>|</picture>|code fence|\"nobody\"|user nobody")

// camel splits an identifier before each capital letter that follows a small one.
var camel = regexp.MustCompile(`([a-z0-9])([A-Z])`)

var letters = regexp.MustCompile(`[A-Za-z]+`)

func TestWords(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = root
	list, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	files := strings.Split(strings.TrimRight(string(list), "\x00"), "\x00")
	if len(files) < 300 {
		t.Fatalf("git lists %d files: this test no longer looks at the right thing", len(files))
	}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			if os.IsNotExist(err) {
				continue // deleted, not committed yet
			}
			t.Fatal(err)
		}
		if !utf8.Valid(text) || strings.ContainsRune(string(text), 0) {
			continue // an image
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, word := range findOldWords(line) {
				if !isKept(file, word) {
					t.Errorf("%s:%d: %q is not a term of docs/glossary.md: write %s", file, i+1, word, oldWords[word])
				}
			}
		}
	}
}

// findOldWords returns the old words of a line, in lower case.
func findOldWords(line string) []string {
	var found []string
	line = camel.ReplaceAllString(dataWords.ReplaceAllString(line, ""), "$1 $2")
	for _, word := range letters.FindAllString(line, -1) {
		if word = strings.ToLower(word); oldWords[word] != "" {
			found = append(found, word)
		}
	}
	return found
}

func isKept(file, word string) bool {
	for _, k := range keptWords {
		if file == k.file || strings.HasSuffix(k.file, "/") && strings.HasPrefix(file, k.file) {
			return k.words == nil || slices.Contains(k.words, word)
		}
	}
	return false
}

func TestFindOldWords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ line, want string }{
		"prose":             {"Nobody looks at the pictures.", "nobody pictures"},
		"exported_name":     {"func (s *Sweeper) DoomDue()", "sweeper doom"},
		"unexported_name":   {"pictureURL := x", "picture"},
		"snake_case":        {"vitrine_worker_pictures_in_flight", "pictures"},
		"part_of_a_word":    {"depicture unintended fenced doomsday", ""},
		"field_of_an_event": {"Fencing int64 `json:\"fence\"`", ""},
		"input_of_a_uuid":   {"vitrine.io/images/%d/fences/%d/dead", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := strings.Join(findOldWords(c.line), " "); got != c.want {
				t.Errorf("%q: got %q, want %q", c.line, got, c.want)
			}
		})
	}
}
