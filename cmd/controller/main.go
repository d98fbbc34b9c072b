package main

import (
	"os"

	"vitrine.io/pkg/platform/program"
)

// version is written by the linker: -X main.version.
var version string

func main() {
	program.Main(program.About{
		Name: "controller", Text: "Vitrine's controller of ImagePipelines in Kubernetes.", Version: version,
	}, os.Environ(), serve)
}
