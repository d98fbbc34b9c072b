package catalog_test

import (
	"fmt"
	"strings"
	"testing"

	"vitrine.io/pkg/domain/catalog"
)

// wrongText returns "path code" of the first wrong field of a product with that name and description.
func wrongText(name, description string) string {
	in := input()
	in.Name, in.Description = name, description
	codes := fieldCodes(catalog.CheckProduct(in))
	return strings.Join(codes, " ")
}

func TestText(t *testing.T) {
	t.Parallel()
	t.Run("hidden_characters_are_refused", testTextHiddenCharactersAreRefused)
	t.Run("joiners_and_variations_need_their_neighbours", testTextJoinersAndVariationsNeedTheirNeighbours)
	t.Run("descriptions_have_lines", testTextDescriptionsHaveLines)
	t.Run("is_stored_normalized", testTextIsStoredNormalized)
	t.Run("length_is_that_of_the_stored_text", testTextLengthIsThatOfTheStoredText)
	t.Run("detail_names_the_character", testTextDetailNamesTheCharacter)
}

func testTextHiddenCharactersAreRefused(t *testing.T) {
	t.Parallel()
	for _, r := range []rune{
		0, '\t', '\n', '\r', 0x1b, 0x7f, 0x85, 0xad, 0x34f, 0x61c, 0x115f, 0x180b, 0x180e, 0x200b, 0x200c, 0x200d, 0x200e, 0x200f,
		0x2028, 0x2029, 0x202a, 0x202e, 0x2060, 0x2066, 0x2069, 0x3164, 0xfe0f, 0xfeff, 0xffa0, 0xfffe, 0xe0041, 0xe0100, 0x10ffff,
	} {
		name := fmt.Sprintf("La%cmp", r)
		if got := wrongText(name, ""); got != "product_name invalid_text" {
			t.Errorf("U+%04X in the name of a product: got %q", r, got)
		}
		if _, err := catalog.NewUser(name, "ada@example.com"); err == nil {
			t.Errorf("U+%04X in the name of a user is accepted", r)
		}
		if _, err := catalog.NewUser("Ada", fmt.Sprintf("a%cda@example.com", r)); err == nil {
			t.Errorf("U+%04X in an e-mail address is accepted", r)
		}
		if got := catalog.CheckPatch(catalog.ProductPatch{Name: &name}); len(got) != 1 || got[0].Code != "invalid_text" {
			t.Errorf("U+%04X in a patch: got %v", r, got)
		}
		if url := input(fmt.Sprintf("https://example.com/a%cb", r)); catalog.CheckProduct(url) == nil {
			t.Errorf("U+%04X in a URL is accepted", r)
		}
	}
	for _, name := range []string{"\u200b", "\ufeff\u2060", "\u3164"} {
		if got := wrongText(name, ""); got != "product_name invalid_text" {
			t.Errorf("%+q: got %q", name, got)
		}
	}
	for _, name := range []string{"", " ", "\u00a0\u3000", "\t\n", "\u0301", "\u2800"} {
		if got := wrongText(name, ""); got != "product_name required" {
			t.Errorf("%+q: got %q", name, got)
		}
	}
	for _, name := range []string{"Lamp", "Stehlampe „Åse“", "лампа", "灯 2", "مصباح ۱۲", "मेज़", "\u0600١٢", "😀", "x\ue000"} {
		if got := wrongText(name, ""); got != "" {
			t.Errorf("%+q: got %q", name, got)
		}
	}
}

func testTextJoinersAndVariationsNeedTheirNeighbours(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"می\u200cخواهم",              // Persian
		"ශ්\u200dරී ලංකා",            // Sinhala
		"അവന്\u200d",                 // Malayalam: at the end of a word, after a virama
		"👩\u200d👩\u200d👧",            // a family
		"👩🏽\u200d🚀",                  // with a skin tone
		"❤\ufe0f\u200d🔥",             // with a variation selector
		"🙂\u200d\u2194\ufe0f",        // with an arrow
		"1\ufe0f\u20e3 \u2139\ufe0f", // a keycap, and a letter that is an emoji
		"葛\U000e0100",                // a variation of an ideograph
	} {
		if got := wrongText(name, ""); got != "" {
			t.Errorf("%+q: got %q", name, got)
		}
	}
	for _, name := range []string{
		"a\u200db", "\u200dलa", "ل\u200d", "😀\u200d", "❤\ufe0f\u200d", "لa\u200c", "л\u200dл", "灯\u200c灯", "1\u200d2", "ل\u200ca",
		"a\ufe0f", "1\ufe0f", "\ufe0fa", "لم\ufe0f", "😀\u200d\u200d😀",
	} {
		if got := wrongText(name, ""); got != "product_name invalid_text" {
			t.Errorf("%+q: got %q", name, got)
		}
	}
}

func testTextDescriptionsHaveLines(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"a\n\tb\n\nc", "a\r\nb\rc", "a\u00adb", "a\u200bb", "א\u200f!", "a\u200db\u2060"} {
		if got := wrongText("Lamp", text); got != "" {
			t.Errorf("%+q: got %q", text, got)
		}
	}
	for _, r := range []rune{0, 0x0b, 0x1b, 0x7f, 0x85, 0x2028, 0x202e, 0x2066, 0x2069, 0xfeff, 0x3164, 0xe0041, 0xffff} {
		if got := wrongText("Lamp", fmt.Sprintf("a\n%cb", r)); got != "product_description invalid_text" {
			t.Errorf("U+%04X: got %q", r, got)
		}
	}
}

func testTextIsStoredNormalized(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	in := input()
	in.Name, in.Description = " \u00a0Cafe\u0301\tA\u030a \n", "\r\n Cafe\u0301\r\nnoir\r \n"
	in.Name = strings.Replace(in.Name, "\t", " ", 1)
	p, err := h.Create(t.Context(), in, "")
	if err != nil || p.Name != "Café Å" || p.Description != "Café\nnoir" {
		t.Errorf("got %+q, %+q and %v", p.Name, p.Description, err)
	}
	name, description := "\u3000Cafe\u0301 ", "Cafe\u0301\r\nnoir "
	patched, err := h.Patch(t.Context(), p.ID, catalog.ProductPatch{Name: &name, Description: &description}, nil, "")
	if err != nil || patched.Name != "Café" || patched.Description != "Café\nnoir" {
		t.Errorf("after the patch: got %+q, %+q and %v", patched.Name, patched.Description, err)
	}
	again, err := h.Patch(t.Context(), p.ID, catalog.ProductPatch{Name: &name, Description: &description}, nil, "")
	if err != nil || again.Version != patched.Version {
		t.Errorf("the same text in another notation raises the version to %d: %v", again.Version, err)
	}
	u, err := h.CreateUser(t.Context(), " Rene\u0301 ", "\trene\u0301@example.com ")
	if err != nil || u.Name != "René" || u.Email != "ren\u00e9@example.com" {
		t.Errorf("got %+v and %v", u, err)
	}
	if _, err := h.CreateUser(t.Context(), "René", "ren\u00e9@example.com"); err == nil {
		t.Error("two spellings of one e-mail address are both accepted")
	}
}

func testTextLengthIsThatOfTheStoredText(t *testing.T) {
	t.Parallel()
	if got := wrongText(" "+strings.Repeat("e\u0301", 200)+" ", ""); got != "" {
		t.Errorf("200 characters with blanks and accents: got %q", got)
	}
	if got := wrongText(strings.Repeat("e\u0301", 201), ""); got != "product_name too_long" {
		t.Errorf("201 characters: got %q", got)
	}
	if got := wrongText(strings.Repeat("\u0958", 101), ""); got != "product_name too_long" { // NFC has two characters for each
		t.Errorf("202 characters when normalized: got %q", got)
	}
}

func testTextDetailNamesTheCharacter(t *testing.T) {
	t.Parallel()
	in := input()
	in.Name = "Lä\u202emp"
	got := catalog.CheckProduct(in)
	if want := "must not contain the character U+202E (character 3)"; len(got) != 1 || got[0].Detail != want {
		t.Errorf("got %v, want %q", got, want)
	}
}
