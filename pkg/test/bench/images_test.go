package main

import (
	"cmp"
	"fmt"
	"image"
	_ "image/jpeg" // decodes the headers of the photographs
	_ "image/png"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "golang.org/x/image/webp"

	"vitrine.io/pkg/foundation/pipeline"
)

const (
	minPhotos   = 24
	minPixels   = 2_000_000
	maxPixels   = 24_000_000
	imageRounds = 3
	memoryFirst = 50  // images, after which memory is measured
	memoryLast  = 500 // images, after which it is measured a second time
)

// photoDirs are the directories of gnome-backgrounds and mate-backgrounds, which make deps-bench-images installs.
var photoDirs = []string{"/usr/share/backgrounds/gnome", "/usr/share/backgrounds/mate"}

// settling is the pause before the resident memory of a process is measured: the allocator returns pages one second after
// their last use.
const settling = 3 * time.Second

// renderTotal is the number and the size in bytes of the renditions that a side has rendered.
type renderTotal struct{ renditions, bytes int }

// renderer is an implementation that renders files with the default pipeline.
type renderer interface {
	// render returns when all renditions of all files are complete.
	render(files []string) (renderTotal, error)
	// processes returns the ids of the rendering processes.
	processes() []int
}

// usage is the CPU time and memory of a renderer so far.
type usage struct {
	renderTotal
	cpu           time.Duration
	byFormat      map[string]rate // by the format of the source
	round         rate            // the current round
	perSecond     []float64       // renditions per second of CPU, by round
	peak, settled int64           // resident memory in bytes, the maximum of all rounds
}

// rate is a number of renditions and their CPU time.
type rate struct {
	renditions int
	cpu        time.Duration
}

func (r rate) plus(renditions int, cpu time.Duration) rate {
	return rate{r.renditions + renditions, r.cpu + cpu}
}
func (r rate) perSecond() float64 { return float64(r.renditions) / r.cpu.Seconds() }

// imageSides are the compared renderers, in the order of the table.
var imageSides = []string{"ceiling", "codec", "worker", "sharp"}

// BenchmarkImages renders the same photographs in four ways, and measures the CPU time and the memory of the rendering
// processes. It runs once and contains the rounds. In a round the renderers alternate every few photographs, so that other
// load on the machine affects all of them.
func BenchmarkImages(b *testing.B) {
	photos := photographs(b)
	worker := newWorkerRenderer(b)
	renderers := map[string]renderer{
		"ceiling": newCeiling(b), "codec": newCodecRenderer(b, photos, pipeline.Default().Spec),
		"worker": worker, "sharp": newSharp(b),
	}
	usages := map[string]*usage{}
	for _, name := range imageSides {
		usages[name] = &usage{byFormat: map[string]rate{}}
		_, err := renderers[name].render(photos[:2]) // starts connections, child processes and just-in-time compilation
		must(b, err)
	}
	for round := range imageRounds {
		for turn, some := range turns(photos) {
			for i := range imageSides {
				name := imageSides[(i+turn+round)%len(imageSides)]
				usages[name].work(b, renderers[name], some)
			}
		}
		<-time.After(settling)
		for _, name := range imageSides {
			usages[name].rest(b, renderers[name])
		}
	}
	for _, name := range imageSides {
		b.Run(name, func(b *testing.B) { usages[name].report(b, usages["ceiling"], usages["sharp"], len(photos)) })
	}
	for _, format := range slices.Sorted(maps.Keys(usages["codec"].byFormat)) {
		ours := usages["codec"].byFormat[format]
		b.Run("of_"+format, func(b *testing.B) {
			b.ReportMetric(ours.perSecond()/usages["ceiling"].byFormat[format].perSecond(), unitRatio)
			b.ReportMetric(ours.perSecond()/usages["sharp"].byFormat[format].perSecond(), unitToSharp)
			b.ReportMetric(float64(ours.renditions/outputs/imageRounds), unitImages)
		})
	}
	b.Run("utilization", func(b *testing.B) {
		worker.busy, worker.slots = 0, 0
		_, err := worker.render(photos) // all in one call, so that the codecs always have work
		must(b, err)
		b.ReportMetric(worker.utilization(), unitRatio)
	})
	b.Run("memory", func(b *testing.B) { memory(b, photos) })
	for _, v := range variants() {
		b.Run(v.name, func(b *testing.B) { v.measure(b, photos) })
	}
}

// turnSize is the number of files that a renderer renders in its turn.
const turnSize = 6

// turns splits files into parts of one format each.
func turns(files []string) (parts [][]string) {
	of := map[string][]string{}
	for _, file := range files {
		of[sourceFormat(file)] = append(of[sourceFormat(file)], file)
	}
	for _, format := range slices.Sorted(maps.Keys(of)) {
		parts = slices.AppendSeq(parts, slices.Chunk(of[format], turnSize))
	}
	return parts
}

// sourceFormat returns the format of a file, from its name.
func sourceFormat(file string) string { return strings.TrimPrefix(filepath.Ext(file), ".") }

// work renders files of one format with m, and adds the usage.
func (e *usage) work(tb testing.TB, m renderer, files []string) {
	tb.Helper()
	before := treeCPU(tb, m.processes())
	out, err := m.render(files)
	must(tb, err)
	used := treeCPU(tb, m.processes()) - before
	e.renderTotal = renderTotal{e.renditions + out.renditions, e.bytes + out.bytes}
	e.cpu += used
	e.round = e.round.plus(out.renditions, used)
	format := sourceFormat(files[0])
	e.byFormat[format] = e.byFormat[format].plus(out.renditions, used)
}

// rest ends a round. The allocator of m has had time to return memory.
func (e *usage) rest(tb testing.TB, m renderer) {
	tb.Helper()
	e.perSecond = append(e.perSecond, e.round.perSecond())
	e.round = rate{}
	peak, settled := treeMemory(tb, m.processes())
	e.peak, e.settled = max(e.peak, peak), max(e.settled, settled)
}

// report reports one side, and its ratios to two others: the median over the rounds.
func (e *usage) report(b *testing.B, ceiling, sharp *usage, images int) {
	b.Helper()
	over := func(other *usage) []float64 {
		ratios := make([]float64, len(e.perSecond))
		for i := range ratios {
			ratios[i] = e.perSecond[i] / other.perSecond[i]
		}
		slices.Sort(ratios)
		return ratios
	}
	toCeiling := over(ceiling)
	b.ReportMetric(quantile(toCeiling, 0.5), unitRatio)
	b.ReportMetric(toCeiling[0], unitRatioLow)
	b.ReportMetric(toCeiling[len(toCeiling)-1], unitRatioHigh)
	b.ReportMetric(quantile(over(sharp), 0.5), unitToSharp)
	b.ReportMetric(float64(e.renditions)/e.cpu.Seconds(), unitRenditions)
	b.ReportMetric(float64(len(e.perSecond)), unitRounds)
	b.ReportMetric(float64(images), unitImages)
	b.ReportMetric(float64(e.bytes)/float64(len(e.perSecond))/1e6, unitMB)
	b.ReportMetric(float64(e.peak)/1e6, unitPeakMB)
	b.ReportMetric(float64(e.settled)/1e6, unitSettledMB)
}

// memory renders hundreds of images with one codec, and compares its memory after the first 50 with that at the end.
func memory(b *testing.B, photos []string) {
	b.Helper()
	c := newCodecRenderer(b, photos, pipeline.Default().Spec)
	many := func(n int) (files []string) {
		for i := range n {
			files = append(files, photos[i%len(photos)])
		}
		return files
	}
	resident := func() float64 {
		<-time.After(settling)
		_, settled := treeMemory(b, c.processes())
		return float64(settled) / 1e6
	}
	_, err := c.render(many(memoryFirst))
	must(b, err)
	first := resident()
	_, err = c.render(many(memoryLast - memoryFirst))
	must(b, err)
	last := resident()
	b.ReportMetric(last/first, unitRatio)
	b.ReportMetric(first, "first-"+unitSettledMB)
	b.ReportMetric(last, "last-"+unitSettledMB)
}

// variant is a pipeline whose cost is reported beside that of the default.
type variant struct {
	name string
	spec pipeline.Spec
}

// variants returns the default pipeline, one that adds AVIF, and one with targets instead of qualities.
func variants() []variant {
	plain, avif, target := pipeline.Default().Spec, pipeline.Default().Spec, pipeline.Default().Spec
	for i := range avif.Renditions {
		avif.Renditions[i].Formats = append([]pipeline.Output{
			{Format: pipeline.AVIF, Quality: pipeline.DefaultQuality(pipeline.AVIF)},
		}, avif.Renditions[i].Formats...)
		for at := range target.Renditions[i].Formats {
			target.Renditions[i].Formats[at].Quality = 0
			target.Renditions[i].Formats[at].Target = &pipeline.Target{Ssimulacra2: 70, Min: 40, Max: 90}
		}
	}
	return []variant{{"as_it_is", plain}, {"with_avif", avif}, {"with_targets", target}}
}

// every selects the photographs for the variants: one of 4.
const every = 4

func (v variant) measure(b *testing.B, photos []string) {
	b.Helper()
	var files []string
	for i := 0; i < len(photos); i += every {
		files = append(files, photos[i])
	}
	c := newCodecRenderer(b, photos, v.spec)
	e := usage{byFormat: map[string]rate{}}
	_, err := c.render(files[:1])
	must(b, err)
	e.work(b, c, files)
	b.ReportMetric(e.cpu.Seconds()/float64(len(files)), unitCPUEach)
	b.ReportMetric(float64(e.bytes)/1e3/float64(len(files)), unitKBEach)
}

// photographs returns the files of photoDirs with 2 to 24 megapixels, in a fixed mixed order.
func photographs(tb testing.TB) []string {
	tb.Helper()
	var files []string
	formats := map[string]int{}
	find := func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) == ".svg" {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		head, format, err := image.DecodeConfig(file)
		if err != nil {
			return nil // no image, or one of an unknown format
		}
		if n := head.Width * head.Height; n >= minPixels && n <= maxPixels {
			files = append(files, path)
			formats[format]++
		}
		return nil
	}
	for _, dir := range photoDirs {
		must(tb, filepath.WalkDir(dir, find))
	}
	if len(files) < minPhotos || len(formats) < 3 {
		tb.Fatalf("%s has %d images of 2 to 24 megapixels, of %v; want %d of three formats: make deps-bench-images",
			photoDirs, len(files), formats, minPhotos)
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(shuffled(a), shuffled(b)) })
	return files
}

// shuffled returns a sort key that separates similar names.
func shuffled(name string) string {
	sum := uint32(2166136261)
	for _, c := range []byte(name) {
		sum = (sum ^ uint32(c)) * 16777619
	}
	return strconv.FormatUint(uint64(sum)<<32|uint64(len(name)), 16) + name
}

// widths returns the widths of the default pipeline in descending order, as arguments of the bare loops.
func widths() []string {
	var all []int
	for _, r := range pipeline.Default().Spec.Renditions {
		all = append(all, r.Width)
	}
	slices.Sort(all)
	slices.Reverse(all)
	return strings.Fields(strings.Trim(fmt.Sprint(all), "[]"))
}
