package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.ReadFile); err != nil {
		fmt.Fprintln(os.Stderr, "cover:", err)
		os.Exit(1)
	}
}

// run merges the profiles named by args. read returns a file of the repository, by its path relative to the root.
func run(args []string, stdout io.Writer, read func(path string) ([]byte, error)) error {
	flags := flag.NewFlagSet("cover", flag.ContinueOnError)
	flags.SetOutput(stdout)
	minimum := flags.Float64("min", 0, "fail below this share of statements, in percent")
	output := flags.String("o", "", "write the merged profile to this file")
	module := flags.String("module", "vitrine.io", "import path of the repository's root")
	without := flags.String("without", "", "leave out files whose path from the root matches this regular expression")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("no profiles in the arguments")
	}
	excluded, err := regexp.Compile(*without)
	if err != nil {
		return fmt.Errorf("read -without: %w", err)
	}
	all := profile{}
	for _, name := range flags.Args() {
		text, err := read(name)
		if err != nil {
			return fmt.Errorf("read profile: %w", err)
		}
		if err := all.merge(strings.NewReader(string(text))); err != nil {
			return fmt.Errorf("read profile %s: %w", name, err)
		}
	}
	err = all.drop(func(file string) (bool, error) {
		path := strings.TrimPrefix(file, *module+"/")
		if *without != "" && excluded.MatchString(path) {
			return true, nil
		}
		source, err := read(path)
		return generated.Match(source), err
	})
	if err != nil {
		return fmt.Errorf("find generated files: %w", err)
	}
	if *output != "" {
		if err := save(all, *output); err != nil {
			return fmt.Errorf("write merged profile: %w", err)
		}
	}
	total := all.report(stdout)
	if total.percent() < *minimum {
		return fmt.Errorf("%.2f%% of statements ran, less than %g%%", total.percent(), *minimum)
	}
	return nil
}

// generated matches the comment that marks generated files for the go command.
var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func save(p profile, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(p.write(f), f.Close())
}
