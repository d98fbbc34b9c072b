package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "configdoc:", err)
		os.Exit(1)
	}
}

// run reads the programs' tables and writes the page and the example.
func run(args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("configdoc", flag.ContinueOnError)
	flags.SetOutput(stderr)
	page := flags.String("page", "", "file for the page")
	example := flags.String("example", "", "file for the .env example")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *page == "" || *example == "" || flags.NArg() == 0 {
		return errors.New("-page, -example and at least one table are needed")
	}
	all := reference{}
	for _, file := range flags.Args() {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read table: %w", err)
		}
		program := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		if err := all.add(program, string(text)); err != nil {
			return fmt.Errorf("read table of %s: %w", program, err)
		}
	}
	if err := os.WriteFile(*page, []byte(all.page()), 0o644); err != nil { //nolint:gosec // public documentation
		return fmt.Errorf("write page: %w", err)
	}
	if err := os.WriteFile(*example, []byte(all.example()), 0o644); err != nil { //nolint:gosec // public documentation
		return fmt.Errorf("write example: %w", err)
	}
	return nil
}
