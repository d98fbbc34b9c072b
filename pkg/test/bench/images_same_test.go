package main

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"vitrine.io/pkg/foundation/pipeline"
)

// paint draws soft hills with some grain, half transparent at its edges if that is wanted.
func paint(width, height int, transparent bool) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, width, height))
	grain := uint32(1)
	for y := range height {
		for x := range width {
			grain = grain*1664525 + 1013904223
			hill := 90 + 60*math.Sin(float64(x)/97)*math.Cos(float64(y)/61) + float64(grain>>28)
			c := color.NRGBA{R: uint8(hill), G: uint8(hill / 2), B: uint8(255 - hill), A: 255}
			if transparent && (x < 100 || y < 100) {
				c.A = 128
			}
			m.SetNRGBA(x, y, c)
		}
	}
	return m
}

// sources are three painted files: a large JPEG, one that is smaller than a rendition, and a PNG with transparency. None is
// better compressed than what is made of it.
func sources(t *testing.T) []string {
	t.Helper()
	asJPEG := func(w io.Writer, m image.Image) error { return jpeg.Encode(w, m, &jpeg.Options{Quality: 98}) }
	dir := t.TempDir()
	var files []string
	for _, row := range []struct {
		name   string
		m      *image.NRGBA
		encode func(io.Writer, image.Image) error
	}{
		{"large.jpg", paint(2200, 1400, false), asJPEG}, {"small.jpg", paint(700, 500, false), asJPEG},
		{"seen-through.png", paint(1700, 1200, true), png.Encode},
	} {
		var body bytes.Buffer
		must(t, row.encode(&body, row.m))
		file := filepath.Join(dir, row.name)
		must(t, os.WriteFile(file, body.Bytes(), 0o600))
		files = append(files, file)
	}
	return files
}

func TestImages(t *testing.T) {
	t.Parallel()
	t.Run("vips_loops_write_equal_files", testImagesVipsLoopsWriteEqualFiles)
	t.Run("worker_writes_equal_files", testImagesWorkerWritesEqualFiles)
	t.Run("every_variant_is_rendered", testImagesEveryVariantIsRendered)
}

func testImagesVipsLoopsWriteEqualFiles(t *testing.T) {
	t.Parallel()
	files := sources(t)
	ceiling, ours := newCeiling(t), newCodecMaker(t, files, pipeline.Default().Spec)
	for _, file := range files {
		want, err := ceiling.make([]string{file})
		must(t, err)
		got, err := ours.make([]string{file})
		must(t, err)
		// libvips leaves an Exif block of about 200 bytes in a WebP file, which our codec takes out.
		if exif := want.bytes - got.bytes; exif < 0 || exif > 3*250 || got.renditions != 6 || want.renditions != 6 {
			t.Errorf("%s: our codec has made %+v, the plain loop %+v, want the same six files", filepath.Base(file), got, want)
		}
	}
	for _, m := range []maker{ceiling, ours} {
		if _, now := treeMemory(t, m.processes()); now < 10<<20 || treeCPU(t, m.processes()) == 0 {
			t.Errorf("%T: %d bytes and %s of CPU are not what such work needs", m, now, treeCPU(t, m.processes()))
		}
	}
}

func testImagesWorkerWritesEqualFiles(t *testing.T) {
	t.Parallel()
	files := sources(t)
	want, err := newCodecMaker(t, files, pipeline.Default().Spec).make(files)
	must(t, err)
	worker := newWorkerMaker(t)
	for round := range 2 {
		got, err := worker.make(files)
		must(t, err)
		if got != want {
			t.Errorf("round %d: the worker has made %+v, the codec alone %+v", round, got, want)
		}
	}
	if got := worker.utilization(); got <= 0 || got > 1 {
		t.Errorf("its codecs had a picture in hand for %g of the time", got)
	}
	if got := len(worker.processes()); got != 1+workerChildren {
		t.Errorf("processes: got %d, want the worker and its %d codecs", got, workerChildren)
	}
}

func testImagesEveryVariantIsRendered(t *testing.T) {
	t.Parallel()
	files := sources(t)[1:2]
	for _, v := range variants() {
		got, err := newCodecMaker(t, files, v.spec).make(files)
		must(t, err)
		formats := len(v.spec.Renditions[0].Formats)
		if got.renditions != formats*len(v.spec.Renditions) {
			t.Errorf("%s: got %d renditions, want %d formats of each", v.name, got.renditions, formats)
		}
	}
}
