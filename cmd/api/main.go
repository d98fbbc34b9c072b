package main

import (
	"context"
	"os"

	"vitrine.io/pkg/platform/program"
)

// version is written by the linker: -X main.version.
var version string

func main() {
	program.Main(program.About{
		Name: "api", Text: "Vitrine's HTTP API, relay and maintenance.", Version: version,
	}, os.Environ(), serve)
}

// serve assembles the program and runs it.
func serve(ctx context.Context, cfg Config, app *program.App) error {
	a, err := assemble(cfg, app)
	if err != nil {
		return err
	}
	return a.run(ctx)
}
