package catalog

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Text of clients is stored in one form, so that what looks the same compares the same: in Unicode normalization form C
// (NFC), without white space at its ends. Characters that no reader sees, or that reorder the text around them, are refused.

// normalize returns value in NFC, without white space at its ends. The result of a text that is not UTF-8 is not UTF-8.
func normalize(value string) string { return strings.TrimSpace(norm.NFC.String(value)) }

// normalizeLines is normalize for a text of several lines: every line ends in "\n".
func normalizeLines(value string) string {
	return normalize(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(value))
}

// invalidName returns why value, which is normalized, may not be a name or another text of one line, or "".
func invalidName(value string) string {
	return invalidText(value, func(runes []rune, i int) bool {
		return hidden(runes[i]) && !joins(runes, i) && !selectsVariation(runes, i)
	})
}

// invalidLines returns why value, which is normalized, may not be a text of several lines, or "". Such a text may also have
// tabs, and the format characters of formatsText.
func invalidLines(value string) string {
	return invalidText(value, func(runes []rune, i int) bool {
		r := runes[i]
		return r != '\n' && r != '\t' && hidden(r) && !slices.Contains(formatsText, r) && !selectsVariation(runes, i)
	})
}

// invalidText names the first character for which refused returns true.
func invalidText(value string, refused func(runes []rune, i int) bool) string {
	if !utf8.ValidString(value) {
		return "is not valid UTF-8"
	}
	if isASCIIText(value) {
		return ""
	}
	runes := []rune(value)
	for i, r := range runes {
		if refused(runes, i) {
			return fmt.Sprintf("must not contain the character U+%04X (character %d)", r, i+1)
		}
	}
	return ""
}

// isASCIIText reports whether value has only visible ASCII characters and blanks, as most names do.
func isASCIIText(value string) bool {
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return false
		}
	}
	return true
}

// hidden reports whether r is a control, a line separator, a noncharacter, or has no form of its own: zero-width characters,
// the controls of bidirectional text, fillers, tags, joiners and variation selectors. Signs of Cf that have a form, such as
// the Arabic number sign, are not hidden.
func hidden(r rune) bool {
	return !unicode.Is(unicode.Prepended_Concatenation_Mark, r) &&
		unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point,
			unicode.Variation_Selector, unicode.Noncharacter_Code_Point)
}

// formatsText are the hidden characters that affect only the line breaks, the joining and the direction of their neighbours:
// soft hyphen, zero width space, joiners, direction marks, word joiner. Long texts are copied with them.
var formatsText = []rune{0xad, 0x61c, 0x200b, 0x200c, 0x200d, 0x200e, 0x200f, 0x2060}

// unjoined are the scripts whose letters have no joining forms. Between them a joiner has no effect, except to make two
// equal names differ.
var unjoined = []*unicode.RangeTable{
	unicode.Latin, unicode.Greek, unicode.Cyrillic, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul,
	unicode.Armenian, unicode.Georgian, unicode.Hebrew, unicode.Nd,
}

// joins reports whether the character at i is U+200C or U+200D beside characters that it may join or separate: Persian and
// the scripts of India are spelled with both, and sequences of emoji have the second. After a mark, such as a virama, it may
// end a word.
func joins(runes []rune, i int) bool {
	if !unicode.Is(unicode.Join_Control, runes[i]) || i == 0 || !joinable(base(runes[:i])) {
		return false
	}
	if before := runes[i-1]; unicode.Is(unicode.M, before) && !unicode.Is(unicode.Variation_Selector, before) {
		return true
	}
	return i+1 < len(runes) && joinable(runes[i+1])
}

func joinable(r rune) bool {
	return r > unicode.MaxLatin1 && unicode.In(r, unicode.L, unicode.M, unicode.S) && !unicode.In(r, unjoined...)
}

// base returns the last character of runes that is no mark, variation selector or modifier of a skin tone, or 0.
func base(runes []rune) rune {
	for i := len(runes) - 1; i >= 0; i-- {
		if r := runes[i]; !unicode.In(r, unicode.M, unicode.Sk) {
			return r
		}
	}
	return 0
}

const (
	keycap      = 0x20e3 // a mark that encloses a digit
	information = 0x2139 // a letter of which there is an emoji
	blankCell   = 0x2800 // of Braille: a symbol without dots
)

// selectsVariation reports whether the character at i selects a form of the character before it: of a symbol or punctuation
// mark, such as a heart as emoji; of an ideograph; of a Mongolian letter; or of a digit of a keycap.
func selectsVariation(runes []rune, i int) bool {
	if !unicode.Is(unicode.Variation_Selector, runes[i]) || i == 0 {
		return false
	}
	before := runes[i-1]
	if before <= unicode.MaxASCII {
		return i+1 < len(runes) && runes[i+1] == keycap
	}
	return before == information || unicode.In(before, unicode.S, unicode.P, unicode.Han, unicode.Mongolian)
}

// legible reports whether value has a character that readers see: a letter, digit, punctuation mark or symbol, other than
// the blank pattern of Braille.
func legible(value string) bool {
	return strings.ContainsFunc(value, func(r rune) bool {
		return unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S) && r != blankCell
	})
}
