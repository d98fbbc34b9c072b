package imaging_test

import (
	"image"
	"syscall"
	"testing"
	"time"

	"vitrine.io/pkg/adapter/imaging"
	"vitrine.io/pkg/foundation/pipeline"
)

// busy returns the CPU time of this process.
func busy(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// textured returns an image with fine detail: waves of all lengths, and noise.
func textured(width, height int) image.Image {
	img := gradient(width, height)
	for i := range img.Pix {
		if i%4 < 3 {
			img.Pix[i] = uint8(min(255, max(0, int(img.Pix[i])+(i*7919+i*i%104729)%31-15)))
		}
	}
	return img
}

// BenchmarkTarget renders the sizes of the default pipeline in each format, alternately with a quality and with a target,
// and reports the ratio of the CPU times.
func BenchmarkTarget(b *testing.B) {
	source := asJPEG(b, textured(2400, 1800))
	for _, format := range []pipeline.Format{pipeline.JPEG, pipeline.WebP, pipeline.AVIF} {
		b.Run(string(format), func(b *testing.B) {
			plain := spec(inside("full", 1600, format), inside("card", 800, format), inside("thumb", 320, format))
			target := spec(aimed("full", 1600, 70, format), aimed("card", 800, 70, format), aimed("thumb", 320, 70, format))
			var elapsed [2]time.Duration
			for b.Loop() {
				for i, s := range []pipeline.Spec{plain, target} {
					before := busy(b)
					if _, err := imaging.Render(source, s); err != nil {
						b.Fatal(err)
					}
					elapsed[i] += busy(b) - before
				}
			}
			b.ReportMetric(elapsed[1].Seconds()/elapsed[0].Seconds(), "times-the-cpu")
		})
	}
}
