package catalog_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"vitrine.io/pkg/domain/catalog"
)

func TestPrefixOf(t *testing.T) {
	t.Parallel()
	nonce := strings.ReplaceAll(uuid.NewString(), "-", "")
	for key, want := range map[string]string{
		"products/1/2/3-" + nonce + "/card.webp": "products/1/2/3-" + nonce + "/",
		"products/1/2/3-" + nonce + "/a/b":       "products/1/2/3-" + nonce + "/",
		"products/1/2/3-" + nonce + "/":          "", // a folder made by a console
		"products/1/2/3-" + nonce:                "",
		"originals/1/2/3-" + nonce + "/source":   "originals/1/2/3-" + nonce + "/",
		"originals/.vitrine":                     "",
		"products/1/2/3/card.webp":               "",
		"products/0/2/3-a/card.webp":             "",
		"products/1/02/3-a/card.webp":            "",
		"products/1/99999999999999999999/3-a/x":  "",
		"products/1/2/3-A/card.webp":             "",
		"backup/products/1/2/3-a/card.webp":      "",
		"products/1/2/logo.png":                  "",
		"canary/7/2-" + nonce + "/card.webp":     "canary/7/2-" + nonce + "/",
		"canary/7/2-" + nonce:                    "",
		"canary/7/2/card.webp":                   "",
		".vitrine/installation":                  "",
		"":                                       "",
	} {
		got, image, ok := catalog.PrefixOf(key)
		if got != want || ok != (want != "") || ok && image != 2 {
			t.Errorf("%q: got %q of image %d, %v, want %q", key, got, image, ok, want)
		}
	}
}

func TestPrefixOfStoredRenditions(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 2)
	a := h.begin(t, p, 1)
	for _, r := range result(a).Renditions {
		got, image, ok := catalog.PrefixOf(r.Key)
		if !ok || got != a.Prefix || image != a.ImageID {
			t.Errorf("%s: got %q of image %d, %v, want %q of image %d", r.Key, got, image, ok, a.Prefix, a.ImageID)
		}
	}
}
