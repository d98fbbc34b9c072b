package config_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/platform/config"
)

type httpConfig struct {
	Addr        string        `env:"ADDR" envDefault:":8080" desc:"address to listen on"`
	ReadTimeout time.Duration `env:"READ_TIMEOUT" envDefault:"5s" desc:"time to read a request"`
	Origins     []string      `env:"ORIGINS" envDefault:"https://a.example, https://b.example" desc:"allowed origins"`
	Access      bool          `env:"ACCESS_LOG" envDefault:"true" desc:"log requests"`
}

type poolConfig struct {
	Open int `env:"OPEN" envDefault:"10" desc:"open connections"`
	Idle int `env:"IDLE" envDefault:"5" desc:"idle connections"`
}

func (c poolConfig) Validate() []fault.Field {
	var wrong []fault.Field
	if c.Open < 1 {
		wrong = append(wrong, fault.Field{Path: "OPEN", Code: "out_of_range", Detail: "must be at least 1"})
	}
	if c.Idle < 0 || c.Idle > c.Open {
		wrong = append(wrong, fault.Field{Path: "IDLE", Code: "out_of_range", Detail: "must be 0 to OPEN"})
	}
	return wrong
}

type storeConfig struct {
	DSN  string     `env:"DSN" secret:"true" desc:"connection string"`
	Pool poolConfig `envPrefix:"POOL_"`
}

// Validate has a pointer receiver; poolConfig's has a value receiver.
func (c *storeConfig) Validate() []fault.Field {
	if c.DSN == "" {
		return []fault.Field{{Path: "DSN", Code: "required", Detail: "is required"}}
	}
	return nil
}

type shared struct {
	Rate     float64 `env:"RATE" envDefault:"0.5" desc:"share of | things"`
	MaxBytes int64   `env:"MAX_BYTES" desc:"limit in bytes"`
}

type testConfig struct {
	HTTP   httpConfig  `envPrefix:"HTTP_"`
	Store  storeConfig `envPrefix:"STORE_"`
	Shared shared
	Tokens []string `env:"TOKENS" secret:"true" desc:"accepted tokens"`
	Clock  func()   `env:"-"`
	hidden int      //nolint:unused // shows that unexported fields are left alone
}

const mustBeText = ": must be text (in quotes if YAML reads it as something else), not "

const (
	storeDSN = "postgres://db/v?hunter2"
	dsn      = "VITRINE_STORE_DSN=" + storeDSN
)

// write writes text to a new file and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mistakes returns the invalid settings in the error as "name: detail".
func mistakes(t *testing.T, err error) []string {
	t.Helper()
	var e *config.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want a *config.Error", err)
	}
	lines := make([]string, 0, len(e.Fields))
	for _, f := range e.Fields {
		if f.Code == "" {
			t.Errorf("%s has no code", f.Path)
		}
		lines = append(lines, f.Path+": "+f.Detail)
	}
	return lines
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	t.Run("defaults", testLoadDefaults)
	t.Run("environment_over_file", testLoadEnvironmentOverFile)
	t.Run("argument_over_variable", testLoadArgumentOverVariable)
	t.Run("every_mistake_is_listed", testLoadEveryMistakeIsListed)
	t.Run("invalid_values", testLoadInvalidValues)
	t.Run("unknown_variables", testLoadUnknownVariables)
}

func testLoadDefaults(t *testing.T) {
	t.Parallel()
	got, unknown, err := config.Load[testConfig](nil, []string{dsn, "VITRINE_HTTP_ADDR=", "PATH=/bin"})
	if err != nil || len(unknown) > 0 {
		t.Fatal(err, unknown)
	}
	want := testConfig{
		HTTP: httpConfig{
			Addr: ":8080", ReadTimeout: 5 * time.Second, Access: true,
			Origins: []string{"https://a.example", "https://b.example"},
		},
		Store:  storeConfig{DSN: storeDSN, Pool: poolConfig{Open: 10, Idle: 5}},
		Shared: shared{Rate: 0.5},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func testLoadEnvironmentOverFile(t *testing.T) {
	t.Parallel()
	file := write(t, "c.yaml", `
# everything of one program
http:
  addr: ":1"
  read_timeout: 1m
  origins: []
  access_log: false
store:
  dsn: from file
  pool: {open: 3, idle: 2}
rate: 0.25
max_bytes: 9007199254740993
tokens: ["a,b", c]
`)
	env := []string{"VITRINE_HTTP_ADDR=:2", "VITRINE_STORE_POOL_OPEN=7", "VITRINE_CONFIG=" + file}
	got, _, err := config.Load[testConfig](nil, env)
	if err != nil {
		t.Fatal(err)
	}
	want := testConfig{
		HTTP:   httpConfig{Addr: ":2", ReadTimeout: time.Minute, Origins: []string{}},
		Store:  storeConfig{DSN: "from file", Pool: poolConfig{Open: 7, Idle: 2}},
		Shared: shared{Rate: 0.25, MaxBytes: 9007199254740993},
		Tokens: []string{"a,b", "c"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func testLoadArgumentOverVariable(t *testing.T) {
	t.Parallel()
	file := write(t, "c.yaml", "http: {addr: ':9'}")
	for _, args := range [][]string{{"--config", file}, {"--config=" + file}, {"-config", file}} {
		got, _, err := config.Load[testConfig](args, []string{dsn, "VITRINE_CONFIG=/nowhere.yaml"})
		if err != nil || got.HTTP.Addr != ":9" {
			t.Errorf("%q: got %q and %v", args, got.HTTP.Addr, err)
		}
	}
}

func testLoadEveryMistakeIsListed(t *testing.T) {
	t.Parallel()
	file := write(t, "c.yaml", "store: {pool: {open: 0}, pol: 1}\nhttp: {access_log: 'yes'}")
	_, _, err := config.Load[testConfig]([]string{"--config", file, "serve"}, []string{
		"VITRINE_HTTP_READ_TIMEOUT=5", "VITRINE_STORE_POOL_IDLE=many", "VITRINE_RATE=NaN", "VITRINE_MAX_BYTES=1e9",
	})
	equal(t, mistakes(t, err), []string{
		"serve: is not an argument of this program, see --help",
		file + ": http.access_log: must be true or false, not text",
		file + ": store.pol: there is no such key",
		`VITRINE_HTTP_READ_TIMEOUT: "5" is not a duration, such as 500ms, 30s or 10m`,
		`VITRINE_STORE_POOL_IDLE: "many" is not a whole number`,
		`VITRINE_RATE: "NaN" is not a number`,
		`VITRINE_MAX_BYTES: "1e9" is not a whole number`,
		"VITRINE_STORE_DSN: is required",
		file + ": store.pool.open: must be at least 1",
	})
	if got := err.Error(); strings.Count(got, "\n  ") != 9 || !strings.HasPrefix(got, "the configuration is not valid:") {
		t.Errorf("the text does not have one line for each mistake: %s", got)
	}
}

func testLoadInvalidValues(t *testing.T) {
	t.Parallel()
	for variable, want := range map[string]string{
		"VITRINE_HTTP_READ_TIMEOUT=soon":                     `"soon" is not a duration, such as 500ms, 30s or 10m`,
		"VITRINE_HTTP_ACCESS_LOG=maybe":                      `"maybe" is not true or false`,
		"VITRINE_STORE_POOL_OPEN=1.5":                        `"1.5" is not a whole number`,
		"VITRINE_STORE_POOL_OPEN=99999999999999999999":       `"99999999999999999999" is out of range`,
		"VITRINE_RATE=+Inf":                                  `"+Inf" is not a number`,
		"VITRINE_RATE=half":                                  `"half" is not a number`,
		"VITRINE_STORE_POOL_IDLE=" + strings.Repeat("x", 99): `"` + strings.Repeat("x", 60) + `"... is not a whole number`,
		"VITRINE_STORE_POOL_IDLE=11":                         "must be 0 to OPEN",
	} {
		_, _, err := config.Load[testConfig](nil, []string{dsn, variable})
		name, _, _ := strings.Cut(variable, "=")
		equal(t, mistakes(t, err), []string{name + ": " + want})
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	t.Run("invalid", testFileInvalid)
	t.Run("empty", testFileEmpty)
	t.Run("unreadable", testFileUnreadable)
}

func testFileInvalid(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"http: {adr: ':1'}":       "FILE: http.adr: there is no such key: is http.addr meant?",
		"metrics: {}":             "FILE: metrics: there is no such key",
		"http.addr: ':1'":         "FILE: http.addr: keys are nested, not joined with dots",
		"http: ':1'":              "FILE: http: must be a section, not text",
		"store: [1]":              "FILE: store: must be a section, not this list",
		"http: {addr: 8080}":      "FILE: http.addr" + mustBeText + "a number",
		"http: {addr: }":          "FILE: http.addr" + mustBeText + "nothing",
		"http: {addr: {host: a}}": "FILE: http.addr" + mustBeText + "a section",
		"http: {addr: on}":        "FILE: http.addr" + mustBeText + "true or false",
		"http: {read_timeout: 5}": "FILE: http.read_timeout: must be a duration as text, " +
			"such as 500ms, 30s or 10m, not a number",
		"http: {read_timeout: 5 s}":              `FILE: http.read_timeout: "5 s" is not a duration, such as 500ms, 30s or 10m`,
		"http: {origins: a}":                     "FILE: http.origins: must be a list of texts, not text",
		"http: {origins: [1]}":                   "FILE: http.origins: must be a list of texts, not this list",
		"store: {pool: {open: '3'}}":             "FILE: store.pool.open: must be a whole number, not text",
		"store: {pool: {open: 3.5}}":             `FILE: store.pool.open: "3.5" is not a whole number`,
		"http: {addr: ':1'}\nhttp: {addr: ':2'}": "FILE: yaml: unmarshal errors:\n  line 2: key \"http\" already set in map",
		"[1, 2]":                                 "FILE: is not a mapping of sections",
		"rate: 1\n---\nrate: 2":                  "FILE: has more than one document",
		"http:\n\taddr: a":                       "FILE: yaml: line 2: found character that cannot start any token",
	} {
		file := write(t, "c.yaml", text)
		_, _, err := config.Load[testConfig]([]string{"--config", file}, []string{dsn})
		equal(t, mistakes(t, err), []string{strings.Replace(want, "FILE", file, 1)})
	}
}

func testFileEmpty(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n", "---\n# nothing\nhttp:\n  # addr: a\n", "{}"} {
		if _, _, err := config.Load[testConfig]([]string{"--config", write(t, "c.yaml", text)}, []string{dsn}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func testFileUnreadable(t *testing.T) {
	t.Parallel()
	_, _, err := config.Load[testConfig](nil, []string{dsn, "VITRINE_CONFIG=/nowhere.yaml"})
	equal(t, mistakes(t, err), []string{"VITRINE_CONFIG: open /nowhere.yaml: no such file or directory"})
	_, _, err = config.Load[testConfig]([]string{"--config", "/nowhere.yaml"}, []string{dsn})
	equal(t, mistakes(t, err), []string{"--config: open /nowhere.yaml: no such file or directory"})
	_, _, err = config.Load[testConfig]([]string{"--config"}, []string{dsn})
	equal(t, mistakes(t, err), []string{"--config: needs the path of a file"})
}

func TestSecret(t *testing.T) {
	t.Parallel()
	t.Run("from_file", testSecretFromFile)
	t.Run("invalid_file", testSecretInvalidFile)
	t.Run("redacted", testSecretRedacted)
}

func testSecretFromFile(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"s3cret\n", "s3cret\r\n", "s3cret"} {
		secret := write(t, "dsn", text)
		got, _, err := config.Load[testConfig](nil, []string{"VITRINE_STORE_DSN_FILE=" + secret})
		if err != nil || got.Store.DSN != "s3cret" {
			t.Errorf("%q: got %q and %v", text, got.Store.DSN, err)
		}
		file := write(t, "c.yaml", "store: {dsn_file: "+secret+"}")
		got, _, err = config.Load[testConfig]([]string{"--config", file}, nil)
		if err != nil || got.Store.DSN != "s3cret" {
			t.Errorf("%q by file: got %q and %v", text, got.Store.DSN, err)
		}
		got, _, err = config.Load[testConfig]([]string{"--config", file}, []string{dsn})
		if err != nil || got.Store.DSN != storeDSN {
			t.Errorf("the environment is not preferred to the file: got %q and %v", got.Store.DSN, err)
		}
	}
}

func testSecretInvalidFile(t *testing.T) {
	t.Parallel()
	empty, one := write(t, "empty", "\n"), write(t, "one", "x")
	for _, c := range []struct {
		env  []string
		file string
		want string
	}{
		{env: []string{"VITRINE_STORE_DSN_FILE=/nowhere"},
			want: "VITRINE_STORE_DSN_FILE: open /nowhere: no such file or directory"},
		{env: []string{"VITRINE_STORE_DSN_FILE=" + empty}, want: "VITRINE_STORE_DSN_FILE: the file is empty"},
		{env: []string{dsn, "VITRINE_STORE_DSN_FILE=" + one},
			want: "VITRINE_STORE_DSN: is set, and so is VITRINE_STORE_DSN_FILE"},
		{file: "store: {dsn_file: 5}", want: "FILE: store.dsn_file" + mustBeText + "a number"},
	} {
		file := write(t, "c.yaml", c.file)
		_, _, err := config.Load[testConfig]([]string{"--config", file}, c.env)
		equal(t, mistakes(t, err), []string{strings.Replace(c.want, "FILE: store", file+": store", 1)})
	}
}

type secretNumber struct {
	Pin int `env:"PIN" secret:"true" desc:"a secret number"`
}

func testSecretRedacted(t *testing.T) {
	t.Parallel()
	_, _, err := config.Load[secretNumber](nil, []string{"VITRINE_PIN=hunter2"})
	equal(t, mistakes(t, err), []string{"VITRINE_PIN: the value is not a whole number"})

	cfg, _, err := config.Load[testConfig](nil, []string{dsn, "VITRINE_TOKENS=hunter2,hunter3"})
	if err != nil {
		t.Fatal(err)
	}
	got := config.Effective(cfg)
	want := config.Values{
		"VITRINE_HTTP_ADDR": ":8080", "VITRINE_HTTP_READ_TIMEOUT": "5s", "VITRINE_HTTP_ACCESS_LOG": "true",
		"VITRINE_HTTP_ORIGINS": "https://a.example,https://b.example", "VITRINE_STORE_DSN": config.Redacted,
		"VITRINE_STORE_POOL_OPEN": "10", "VITRINE_STORE_POOL_IDLE": "5", "VITRINE_RATE": "0.5", "VITRINE_MAX_BYTES": "0",
		"VITRINE_TOKENS": config.Redacted,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if empty := config.Effective(testConfig{}); empty["VITRINE_STORE_DSN"] != "" || empty["VITRINE_TOKENS"] != "" {
		t.Errorf("a secret that is not set is redacted: %v", empty)
	}
}

func testLoadUnknownVariables(t *testing.T) {
	t.Parallel()
	_, unknown, err := config.Load[testConfig](nil, []string{
		dsn, "VITRINE_HTTP_ADR=:1", "VITRINE_SOMETHING=1", "VITRINE_HTTP_PORT=8080", "VITRINE_EMPTY=", "VITRINE_RATE_FILE=/x",
		// Ignored: variables of tests, and those that Kubernetes sets for services called vitrine, vitrine-api and vitrine-s3.
		"VITRINE_TEST_POSTGRES=x", "VITRINE_SERVICE_HOST=10.0.0.1", "VITRINE_API_SERVICE_PORT=80",
		"VITRINE_API_SERVICE_PORT_HTTP=80", "VITRINE_API_PORT=tcp://10.0.0.1:80", "VITRINE_API_PORT_8080_TCP=tcp://10.0.0.1:80",
		"VITRINE_API_PORT_8080_TCP_PROTO=tcp", "VITRINE_API_PORT_8080_TCP_PORT=80", "VITRINE_S3_PORT_9000_TCP_ADDR=10.0.0.1",
		"OTHER_HTTP_ADR=1",
	})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]string, 0, len(unknown))
	for _, u := range unknown {
		got = append(got, u.String())
	}
	equal(t, got, []string{
		"VITRINE_HTTP_ADR is not known to this program: is VITRINE_HTTP_ADDR meant?",
		"VITRINE_HTTP_PORT is not known to this program",
		"VITRINE_RATE_FILE is not known to this program",
		"VITRINE_SOMETHING is not known to this program",
	})
}

type (
	missingDesc struct {
		A string `env:"A"`
	}
	missingEnv struct {
		A string `desc:"a"`
	}
	lowerEnv struct {
		A string `env:"a" desc:"a"`
	}
	lowerPrefix struct {
		A missingDesc `envPrefix:"a"`
	}
	badOption struct {
		A string `env:"A,unset" desc:"a"`
	}
	badType struct {
		A chan int `env:"A" desc:"a"`
	}
	badDefault struct {
		A int `env:"A" envDefault:"x" desc:"a"`
	}
	secretTwice struct {
		A string `env:"A" envDefault:"x" secret:"true" desc:"a"`
	}
	sameName struct {
		A, B string `env:"A" desc:"a"`
	}
	sameFileName struct {
		A string `env:"A" secret:"true" desc:"a"`
		B string `env:"A_FILE" desc:"b"`
	}
	valueAndSection struct {
		A string     `env:"POOL" desc:"a"`
		B poolConfig `envPrefix:"POOL_"`
	}
)

func panics[T any](t *testing.T, want string) {
	t.Helper()
	defer func() {
		if got, _ := recover().(string); !strings.Contains(got, want) {
			t.Errorf("got panic %q, want one with %q", got, want)
		}
	}()
	_, _, _ = config.Load[T](nil, nil)
}

func TestTags(t *testing.T) {
	t.Parallel()
	t.Run("mistakes_panic", testTagsMistakesPanic)
}

func testTagsMistakesPanic(t *testing.T) {
	t.Parallel()
	panics[int](t, "int is not a struct")
	panics[missingDesc](t, "missingDesc.A has no desc")
	panics[missingEnv](t, `missingEnv.A: env "" is not a name in UPPER_CASE`)
	panics[lowerEnv](t, `env "a" is not a name in UPPER_CASE`)
	panics[lowerPrefix](t, `envPrefix "a" is not UPPER_CASE_`)
	panics[badOption](t, `env "A,unset" is not a name in UPPER_CASE`)
	panics[badType](t, "type chan int is not supported")
	panics[badDefault](t, `the default "x" is not a whole number`)
	panics[secretTwice](t, "a secret cannot have a default")
	panics[sameName](t, "two fields are called VITRINE_A")
	panics[sameFileName](t, "two fields are called VITRINE_A_FILE")
	panics[valueAndSection](t, "the file's key pool is both a value and a section")
}
