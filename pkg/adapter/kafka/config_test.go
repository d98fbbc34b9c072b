package kafka_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
)

func valid() kafka.Config { return local([]string{"localhost:9092"}, "") }

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	t.Run("valid_config_has_no_error", testConfigValidateValidConfigHasNoError)
	t.Run("invalid_setting_is_named", testConfigValidateInvalidSettingIsNamed)
}

func testConfigValidateValidConfigHasNoError(t *testing.T) {
	t.Parallel()
	files := t.TempDir()
	certificates(t, files)
	for name, change := range map[string]func(*kafka.Config){
		"plain": func(*kafka.Config) {},
		"all settings": func(c *kafka.Config) {
			c.Brokers = []string{"a:1", "[::1]:2"}
			c.TLSEnabled, c.TLSCAFile, c.TLSServerName = true, filepath.Join(files, "ca.pem"), "kafka"
			c.TLSCertFile, c.TLSKeyFile = filepath.Join(files, "cert.pem"), filepath.Join(files, "key.pem")
			c.SASLMechanism, c.SASLUser, c.SASLPassword = "SCRAM-SHA-512", "u", "p"
			c.TopicPrefix, c.Partitions, c.Replication, c.MinISR = "team-a.", 24, 3, 2
		},
	} {
		c := valid()
		change(&c)
		if wrong := c.Validate(); wrong != nil {
			t.Errorf("%s: got %v", name, wrong)
		}
	}
}

func testConfigValidateInvalidSettingIsNamed(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change func(*kafka.Config)
		want   []string
	}{
		"no broker":          {func(c *kafka.Config) { c.Brokers = nil }, []string{"BROKERS"}},
		"broker, no port":    {func(c *kafka.Config) { c.Brokers = []string{"kafka", ":1"} }, []string{"BROKERS", "BROKERS"}},
		"version":            {func(c *kafka.Config) { c.Version = "latest" }, []string{"VERSION"}},
		"old version":        {func(c *kafka.Config) { c.Version = "0.11.0.0" }, []string{"VERSION"}},
		"no client id":       {func(c *kafka.Config) { c.ClientID = " " }, []string{"CLIENT_ID"}},
		"half a certificate": {func(c *kafka.Config) { c.TLSEnabled, c.TLSCertFile = true, "cert" }, []string{"TLS_CERT_FILE"}},
		"missing CA file":    {func(c *kafka.Config) { c.TLSEnabled, c.TLSCAFile = true, "/no/ca" }, []string{"TLS_CA_FILE"}},
		"missing certificate": {func(c *kafka.Config) { c.TLSEnabled, c.TLSCertFile, c.TLSKeyFile = true, "/no/a", "/no/b" },
			[]string{"TLS_CERT_FILE"}},
		"TLS files, no TLS":  {func(c *kafka.Config) { c.TLSCAFile = "ca" }, []string{"TLS_ENABLED"}},
		"user, no mechanism": {func(c *kafka.Config) { c.SASLUser = "u" }, []string{"SASL_MECHANISM"}},
		"unknown mechanism":  {func(c *kafka.Config) { c.SASLMechanism = "GSSAPI" }, []string{"SASL_MECHANISM"}},
		"no user, password":  {func(c *kafka.Config) { c.SASLMechanism = "PLAIN" }, []string{"SASL_USER", "SASL_PASSWORD"}},
		"prefix":             {func(c *kafka.Config) { c.TopicPrefix = "a b" }, []string{"TOPIC_PREFIX"}},
		"long prefix":        {func(c *kafka.Config) { c.TopicPrefix = strings.Repeat("a", 201) }, []string{"TOPIC_PREFIX"}},
		"numbers": {func(c *kafka.Config) { c.Partitions, c.Replication, c.MinISR = 0, 101, 102 },
			[]string{"PARTITIONS", "REPLICATION", "MIN_ISR"}},
		"min isr above replication": {func(c *kafka.Config) { c.MinISR = 2 }, []string{"MIN_ISR"}},
	} {
		c := valid()
		row.change(&c)
		var got []string
		for _, f := range c.Validate() {
			got = append(got, f.Path)
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: got %v, want %v", name, got, row.want)
		}
	}
}

// An invalid configuration is an error of the constructor, not of the first message.
func TestNewRejectsInvalidConfig(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*kafka.Config){
		"version":         func(c *kafka.Config) { c.Version = "x" },
		"missing CA file": func(c *kafka.Config) { c.TLSEnabled, c.TLSCAFile = true, empty+".missing" },
		"empty file":      func(c *kafka.Config) { c.TLSEnabled, c.TLSCAFile = true, empty },
		"empty key pair":  func(c *kafka.Config) { c.TLSEnabled, c.TLSCertFile, c.TLSKeyFile = true, empty, empty },
		"no SASL login":   func(c *kafka.Config) { c.SASLMechanism = "PLAIN" },
	} {
		c := valid()
		change(&c)
		if _, err := kafka.NewConsumer(c, requested("g"), nil, nil, prometheus.NewRegistry(), zap.NewNop()); err == nil {
			t.Errorf("%s: got a consumer, want an error", name)
		}
		if _, err := kafka.NewPublisher(c, prometheus.NewRegistry(), zap.NewNop()); err == nil {
			t.Errorf("%s: got a publisher, want an error", name)
		}
		if _, err := kafka.NewAdmin(c); err == nil {
			t.Errorf("%s: got an admin, want an error", name)
		}
	}
	for name, options := range map[string]kafka.ConsumerConfig{
		"no group":             {Topic: event.TopicRequested, InFlight: 1},
		"no topic":             {Group: "g", InFlight: 1},
		"no message in flight": {Group: "g", Topic: event.TopicRequested},
	} {
		if _, err := kafka.NewConsumer(valid(), options, nil, nil, prometheus.NewRegistry(), zap.NewNop()); err == nil {
			t.Errorf("%s: got a consumer, want an error", name)
		}
	}
}

func TestConfigName(t *testing.T) {
	t.Parallel()
	if got, want := local(nil, "team-a.").Name("topic"), "team-a.topic"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
