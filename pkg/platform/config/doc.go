// Package config reads a program's configuration: environment variables over a YAML file over defaults.
//
// A program's configuration is one struct T that is made of its parts' Config structs:
//
//	type Config struct {
//		HTTP     httpapi.Config  `envPrefix:"HTTP_"`
//		Postgres postgres.Config `envPrefix:"POSTGRES_"`
//	}
//
// A leaf field says everything about its variable in its tags; `env` is relative to the prefixes around it:
//
//	ReadTimeout time.Duration `env:"READ_TIMEOUT" envDefault:"5s" desc:"time to read a whole request"`
//	DSN         string        `env:"DSN" secret:"true" desc:"connection string"`
//
// So these are VITRINE_HTTP_READ_TIMEOUT and VITRINE_POSTGRES_DSN, and in the file http.read_timeout and postgres.dsn. Help
// text, reference table and .env.example come from the same tags. A secret can also come from a file, of which one trailing
// line break is dropped: VITRINE_POSTGRES_DSN_FILE, or postgres.dsn_file, names it.
//
// [Load] returns every mistake at once, each with the name that has to be changed: values that cannot be read, unknown
// keys of the file, and what each part says in a method Validate() []fault.Field, where a Path is the variable's name
// relative to the part ("READ_TIMEOUT"). A variable is required when its part refuses the default. The value of a secret
// appears in no error, log or help text.
//
// A variable that is set to nothing counts as not set, because that is how Compose files and charts leave a value out; an
// empty list or text is written in the file. A VITRINE_ variable that the program does not know is reported and not
// refused: all programs share one environment, be it an .env file or a ConfigMap, and each knows only its own part of it.
//
// Mistakes in a struct's tags are defects of the program; every function of this package panics on them.
package config
