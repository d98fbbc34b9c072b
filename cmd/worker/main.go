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
		Name: "worker", Text: "Vitrine's image worker.", Version: version,
	}, os.Environ(), serve)
}

// serve assembles the program and runs it.
func serve(ctx context.Context, cfg Config, app *program.App) error {
	w, err := assemble(cfg, app)
	if err != nil {
		return err
	}
	return w.run(ctx)
}
