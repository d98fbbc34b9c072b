// Package config reads a program's configuration: environment variables over a YAML file over defaults.
//
// A program's configuration is a struct T of its packages' Config structs:
//
//	type Config struct {
//		HTTP     httpapi.Config  `envPrefix:"HTTP_"`
//		Postgres postgres.Config `envPrefix:"POSTGRES_"`
//	}
//
// The tags of a field describe its variable; `env` is relative to the prefixes of the enclosing structs:
//
//	ReadTimeout time.Duration `env:"READ_TIMEOUT" envDefault:"5s" desc:"time to read a whole request"`
//	DSN         string        `env:"DSN" secret:"true" desc:"connection string"`
//
// These are VITRINE_HTTP_READ_TIMEOUT and VITRINE_POSTGRES_DSN, and http.read_timeout and postgres.dsn in the file. Help
// text, reference table and .env.example are generated from the same tags. A secret can also be in a file that
// VITRINE_POSTGRES_DSN_FILE or postgres.dsn_file names; one line break at the end of the file is ignored.
//
// [Load] returns all invalid settings in one error, each with the variable, key or argument to change. Invalid settings
// are values that cannot be parsed, unknown keys of the file, and the results of the structs' methods Validate()
// []fault.Field, where a Path is the variable's name relative to the struct ("READ_TIMEOUT"). A variable is required if
// Validate rejects the default. No error, log line or help text has the value of a secret.
//
// An empty variable counts as not set, because Compose files and charts leave values out in this way; an empty list or text
// must be in the file. A VITRINE_ variable that the program does not know is reported, but is not an error: the programs may
// share an .env file or a ConfigMap.
//
// Every function of this package panics if a struct's tags are wrong.
package config
