package imaging_test

import (
	"image"
	"slices"
	"testing"

	"vitrine.io/pkg/adapter/imaging"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	t.Run("better_file_scores_higher_in_each_format_and_fit", testCompareQuality)
	t.Run("files_of_several_renditions_score_as_each_alone", testCompareSeveral)
	t.Run("file_that_is_not_comparable", testCompareNot)
	t.Run("source_is_checked_as_for_a_rendering", testCompareSource)
}

// compare compares files with a source.
func compare(t *testing.T, source []byte, spec pipeline.Spec, files ...media.Comparison) ([]media.Score, error) {
	t.Helper()
	vipsLock.Lock()
	defer vipsLock.Unlock()
	return imaging.Compare(source, spec, files)
}

// rendered returns the only file of a rendering in a format and a quality.
func rendered(t *testing.T, source []byte, r pipeline.Rendition, format pipeline.Format, quality int) media.Comparison {
	t.Helper()
	r.Formats = []pipeline.Output{{Format: format, Quality: quality}}
	return media.Comparison{Rendition: r, Format: format, Body: render(t, source, spec(r)).Files[0].Body}
}

func testCompareQuality(t *testing.T) {
	t.Parallel()
	for name, source := range map[string][]byte{"photo": photo(t), "transparent": transparent(t)} {
		for _, r := range []pipeline.Rendition{
			{Name: "inside", Width: 200}, {Name: "cover", Width: 120, Height: 120, Fit: pipeline.Cover},
			{Name: "contain", Width: 150, Height: 150, Fit: pipeline.Contain, Background: "#336699"},
		} {
			for _, format := range []pipeline.Format{pipeline.JPEG, pipeline.WebP, pipeline.AVIF} {
				good, bad := rendered(t, source, r, format, 95), rendered(t, source, r, format, 10)
				got, err := compare(t, source, spec(r), bad, good)
				if err != nil || !got[0].OK || !got[1].OK || got[1].Value < 60 || got[0].Value > got[1].Value-10 {
					t.Errorf("%s, %s as %s: got %+v, %v", name, r.Name, format, got, err)
				}
			}
		}
	}
}

func testCompareSeveral(t *testing.T) {
	t.Parallel()
	source := transparent(t)
	dark := pipeline.Rendition{Name: "dark", Width: 200, Background: "#202020"}
	var files []media.Comparison
	for _, r := range []pipeline.Rendition{{Name: "card", Width: 200}, {Name: "thumb", Width: 100}, dark} {
		for _, format := range []pipeline.Format{pipeline.JPEG, pipeline.WebP} {
			files = append(files, rendered(t, source, r, format, 80))
		}
	}
	got, err := compare(t, source, spec(dark), files...)
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range files {
		alone, err := compare(t, source, spec(dark), file)
		if err != nil || !got[i].OK || got[i] != alone[0] {
			t.Errorf("%s as %s: got %+v, alone %+v, %v", file.Rendition.Name, file.Format, got[i], alone, err)
		}
	}
}

func testCompareNot(t *testing.T) {
	t.Parallel()
	source := photo(t)
	r := pipeline.Rendition{Name: "card", Width: 200}
	good := rendered(t, source, r, pipeline.JPEG, 80)
	other, format, cut := good, good, good
	tiny := rendered(t, source, pipeline.Rendition{Name: "x", Width: 4}, pipeline.JPEG, 80)
	empty := media.Comparison{Rendition: r, Format: pipeline.JPEG}
	other.Rendition.Width, format.Format, cut.Body = 100, pipeline.WebP, good.Body[:len(good.Body)/8]
	got, err := compare(t, source, spec(r), other, format, cut, tiny, empty, good)
	ok := make([]bool, len(got))
	for i, s := range got {
		ok[i] = s.OK
	}
	if err != nil || !slices.Equal(ok, []bool{false, false, false, false, false, true}) {
		t.Errorf("got %v, %v, want only the last one to be comparable", got, err)
	}
}

func testCompareSource(t *testing.T) {
	t.Parallel()
	source := photo(t)
	r := pipeline.Rendition{Name: "card", Width: 200}
	file := rendered(t, source, r, pipeline.JPEG, 80)
	small := spec(r)
	small.Limits.MaxPixels = 10
	none := spec(r)
	none.Accept = []pipeline.Format{pipeline.GIF}
	for name, row := range map[string]struct {
		source []byte
		spec   pipeline.Spec
		want   media.Code
	}{
		"cut":      {source[:len(source)/2], spec(r), media.Corrupt},
		"large":    {source, small, media.TooManyPixels},
		"refused":  {source, none, media.UnsupportedFormat},
		"no_image": {[]byte("text"), spec(r), media.UnsupportedFormat},
	} {
		_, err := compare(t, row.source, row.spec, file)
		if f := media.FailureOf(err); f == nil || f.Code != row.want {
			t.Errorf("%s: got %v, want %s", name, err, row.want)
		}
	}
}

// photo returns an image with smooth areas and texture.
func photo(t *testing.T) []byte {
	t.Helper()
	return asJPEG(t, partlyOpaque(255))
}

// transparent returns an image with texture that is partly transparent.
func transparent(t *testing.T) []byte {
	t.Helper()
	return asPNG(t, partlyOpaque(140))
}

// partlyOpaque returns an image of 400 x 300 pixels whose left half has the opacity alpha.
func partlyOpaque(alpha uint8) *image.NRGBA {
	img := gradient(400, 300)
	for y := range 300 {
		for x := range 400 {
			c := img.NRGBAAt(x, y)
			c.G += uint8((x*7 + y*13 + x*y/5) % 40) // 250 at most
			if x < 200 {
				c.A = alpha
			}
			img.SetNRGBA(x, y, c)
		}
	}
	return img
}
