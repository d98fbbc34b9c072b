package pipeline

// Config says where a program's ImagePipeline is.
type Config struct {
	File string `env:"FILE" desc:"the ImagePipeline in force, YAML or JSON; empty is the built-in default"`
}

// Load reads the pipeline, or returns the default if no file is named. Errors are those of Load.
func (c Config) Load() (Pipeline, error) {
	if c.File == "" {
		return Default(), nil
	}
	return Load(c.File)
}
