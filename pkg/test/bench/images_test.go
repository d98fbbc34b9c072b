package main

import (
	"cmp"
	"fmt"
	"image"
	_ "image/jpeg" // photographs are told by their headers
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
	leastPhotos = 24
	leastPixels = 2_000_000
	mostPixels  = 24_000_000
	imageRounds = 3
	memoryFirst = 50  // pictures, after which memory is looked at
	memoryLast  = 500 // and again
)

// photoDirs are those of the packages gnome-backgrounds and mate-backgrounds, which make deps-bench-images installs.
var photoDirs = []string{"/usr/share/backgrounds/gnome", "/usr/share/backgrounds/mate"}

// settling is how long a process is left alone before its resident memory is read: its allocator gives pages back a second
// after they were last used.
const settling = 3 * time.Second

// made is what a side has made of some pictures.
type made struct{ renditions, bytes int }

// maker is a way to make the default pipeline's renditions of files.
type maker interface {
	// make returns when every rendition of every file is there.
	make(files []string) (made, error)
	// processes are those that do the work.
	processes() []int
}

// effort is what a maker has needed so far.
type effort struct {
	made
	cpu           time.Duration
	byFormat      map[string]rate // of the sources
	round         rate            // that is under way
	perSecond     []float64       // renditions per second of CPU, by round
	peak, settled int64           // bytes of resident memory, the most of all rounds
}

// rate is how many renditions took how much CPU.
type rate struct {
	renditions int
	cpu        time.Duration
}

func (r rate) plus(renditions int, cpu time.Duration) rate {
	return rate{r.renditions + renditions, r.cpu + cpu}
}
func (r rate) perSecond() float64 { return float64(r.renditions) / r.cpu.Seconds() }

// imageSides are the makers that are compared, in the order of the table.
var imageSides = []string{"ceiling", "codec", "worker", "sharp"}

// BenchmarkImages makes the renditions of the same photographs in four ways and measures CPU and memory of those who do the
// work. It is run once; the rounds are in it. In a round the makers take turns every few photographs, so that what else the
// machine does hits all of them.
func BenchmarkImages(b *testing.B) {
	photos := photographs(b)
	worker := newWorkerMaker(b)
	makers := map[string]maker{
		"ceiling": newCeiling(b), "codec": newCodecMaker(b, photos, pipeline.Default().Spec), "worker": worker, "sharp": newSharp(b),
	}
	efforts := map[string]*effort{}
	for _, name := range imageSides {
		efforts[name] = &effort{byFormat: map[string]rate{}}
		_, err := makers[name].make(photos[:2]) // connections, child processes, code that is compiled as it runs
		must(b, err)
	}
	for round := range imageRounds {
		for turn, some := range handfuls(photos) {
			for i := range imageSides {
				name := imageSides[(i+turn+round)%len(imageSides)]
				efforts[name].work(b, makers[name], some)
			}
		}
		<-time.After(settling)
		for _, name := range imageSides {
			efforts[name].rest(b, makers[name])
		}
	}
	for _, name := range imageSides {
		b.Run(name, func(b *testing.B) { efforts[name].report(b, efforts["ceiling"], efforts["sharp"], len(photos)) })
	}
	for _, format := range slices.Sorted(maps.Keys(efforts["codec"].byFormat)) {
		ours := efforts["codec"].byFormat[format]
		b.Run("of_"+format, func(b *testing.B) {
			b.ReportMetric(ours.perSecond()/efforts["ceiling"].byFormat[format].perSecond(), unitRatio)
			b.ReportMetric(ours.perSecond()/efforts["sharp"].byFormat[format].perSecond(), unitToSharp)
			b.ReportMetric(float64(ours.renditions/outputs/imageRounds), unitPictures)
		})
	}
	b.Run("utilization", func(b *testing.B) {
		worker.busy, worker.slots = 0, 0
		_, err := worker.make(photos) // all at once, so that there is always work
		must(b, err)
		b.ReportMetric(worker.utilization(), unitRatio)
	})
	b.Run("memory", func(b *testing.B) { memory(b, photos) })
	for _, v := range variants() {
		b.Run(v.name, func(b *testing.B) { v.measure(b, photos) })
	}
}

// handful is for how many files the makers take turns.
const handful = 6

// handfuls splits files so that each part has one format.
func handfuls(files []string) (parts [][]string) {
	of := map[string][]string{}
	for _, file := range files {
		of[sourceFormat(file)] = append(of[sourceFormat(file)], file)
	}
	for _, format := range slices.Sorted(maps.Keys(of)) {
		parts = slices.AppendSeq(parts, slices.Chunk(of[format], handful))
	}
	return parts
}

// sourceFormat is told by a file's name.
func sourceFormat(file string) string { return strings.TrimPrefix(filepath.Ext(file), ".") }

// work lets m make the renditions of some files of one format, and adds what that took.
func (e *effort) work(tb testing.TB, m maker, files []string) {
	tb.Helper()
	before := treeCPU(tb, m.processes())
	out, err := m.make(files)
	must(tb, err)
	used := treeCPU(tb, m.processes()) - before
	e.made = made{e.renditions + out.renditions, e.bytes + out.bytes}
	e.cpu += used
	e.round = e.round.plus(out.renditions, used)
	format := sourceFormat(files[0])
	e.byFormat[format] = e.byFormat[format].plus(out.renditions, used)
}

// rest ends a round, after which m has had time to give memory back.
func (e *effort) rest(tb testing.TB, m maker) {
	tb.Helper()
	e.perSecond = append(e.perSecond, e.round.perSecond())
	e.round = rate{}
	peak, settled := treeMemory(tb, m.processes())
	e.peak, e.settled = max(e.peak, peak), max(e.settled, settled)
}

// report reports one side, and what it makes beside two others: the median over the rounds.
func (e *effort) report(b *testing.B, ceiling, sharp *effort, pictures int) {
	b.Helper()
	over := func(other *effort) []float64 {
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
	b.ReportMetric(float64(pictures), unitPictures)
	b.ReportMetric(float64(e.bytes)/float64(len(e.perSecond))/1e6, unitMB)
	b.ReportMetric(float64(e.peak)/1e6, unitPeakMB)
	b.ReportMetric(float64(e.settled)/1e6, unitSettledMB)
}

// memory has one codec make hundreds of pictures, and compares what it keeps after some with what it keeps after all.
func memory(b *testing.B, photos []string) {
	b.Helper()
	c := newCodecMaker(b, photos, pipeline.Default().Spec)
	many := func(n int) (files []string) {
		for i := range n {
			files = append(files, photos[i%len(photos)])
		}
		return files
	}
	keeps := func() float64 {
		<-time.After(settling)
		_, settled := treeMemory(b, c.processes())
		return float64(settled) / 1e6
	}
	_, err := c.make(many(memoryFirst))
	must(b, err)
	first := keeps()
	_, err = c.make(many(memoryLast - memoryFirst))
	must(b, err)
	last := keeps()
	b.ReportMetric(last/first, unitRatio)
	b.ReportMetric(first, "first-"+unitSettledMB)
	b.ReportMetric(last, "last-"+unitSettledMB)
}

// variant is a pipeline whose price is told beside the default one's.
type variant struct {
	name string
	spec pipeline.Spec
}

// variants are the default pipeline, with AVIF too, and with targets instead of qualities.
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

// every says which photographs the variants are measured with: one in so many.
const every = 4

func (v variant) measure(b *testing.B, photos []string) {
	b.Helper()
	var files []string
	for i := 0; i < len(photos); i += every {
		files = append(files, photos[i])
	}
	c := newCodecMaker(b, photos, v.spec)
	e := effort{byFormat: map[string]rate{}}
	_, err := c.make(files[:1])
	must(b, err)
	e.work(b, c, files)
	b.ReportMetric(e.cpu.Seconds()/float64(len(files)), unitCPUEach)
	b.ReportMetric(float64(e.bytes)/1e3/float64(len(files)), unitKBEach)
}

// photographs returns the files of the background packages that are photographs' size, in a fixed order that mixes them.
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
			return nil // no picture, or one that needs more than this to be read
		}
		if n := head.Width * head.Height; n >= leastPixels && n <= mostPixels {
			files = append(files, path)
			formats[format]++
		}
		return nil
	}
	for _, dir := range photoDirs {
		must(tb, filepath.WalkDir(dir, find))
	}
	if len(files) < leastPhotos || len(formats) < 3 {
		tb.Fatalf("%s has %d pictures of 2 to 24 megapixels, of %v; want %d of three formats: make deps-bench-images",
			photoDirs, len(files), formats, leastPhotos)
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(shuffled(a), shuffled(b)) })
	return files
}

// shuffled is a key by which names that are alike lie apart.
func shuffled(name string) string {
	sum := uint32(2166136261)
	for _, c := range []byte(name) {
		sum = (sum ^ uint32(c)) * 16777619
	}
	return strconv.FormatUint(uint64(sum)<<32|uint64(len(name)), 16) + name
}

// widths are the default pipeline's, from large to small, as the bare loops take them.
func widths() []string {
	var all []int
	for _, r := range pipeline.Default().Spec.Renditions {
		all = append(all, r.Width)
	}
	slices.Sort(all)
	slices.Reverse(all)
	return strings.Fields(strings.Trim(fmt.Sprint(all), "[]"))
}
