package kafka

import (
	"net"
	"strings"

	"github.com/IBM/sarama"

	"vitrine.io/pkg/foundation/fault"
)

// The SASL mechanisms.
const (
	mechanismPlain    = "PLAIN"
	mechanismScram256 = "SCRAM-SHA-256"
	mechanismScram512 = "SCRAM-SHA-512"
)

// Config is how to connect to Kafka and how to create the topics.
type Config struct {
	Brokers  []string `env:"BROKERS" envDefault:"localhost:9092" desc:"bootstrap brokers, host:port, comma separated"`
	Version  string   `env:"VERSION" envDefault:"2.8.0" desc:"newest protocol version to speak; brokers may be newer"`
	ClientID string   `env:"CLIENT_ID" envDefault:"vitrine" desc:"name shown in the brokers' logs and quotas"`

	TLSEnabled    bool   `env:"TLS_ENABLED" envDefault:"false" desc:"connect with TLS"`
	TLSCAFile     string `env:"TLS_CA_FILE" envDefault:"" desc:"PEM file of the CA; empty: the system's roots; read at the start"`
	TLSCertFile   string `env:"TLS_CERT_FILE" envDefault:"" desc:"PEM file of the client certificate"`
	TLSKeyFile    string `env:"TLS_KEY_FILE" envDefault:"" desc:"PEM file of the client certificate's key"`
	TLSServerName string `env:"TLS_SERVER_NAME" envDefault:"" desc:"name to verify; empty means the broker's host"`

	SASLMechanism string `env:"SASL_MECHANISM" envDefault:"" desc:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty means none"`
	SASLUser      string `env:"SASL_USER" envDefault:"" desc:"SASL user"`
	SASLPassword  string `env:"SASL_PASSWORD" envDefault:"" secret:"true" desc:"SASL password"`

	TopicPrefix string `env:"TOPIC_PREFIX" envDefault:"" desc:"put before every topic and group name, for shared clusters"`
	Partitions  int    `env:"PARTITIONS" envDefault:"24" desc:"partitions of a new topic: the maximum of workers that share it"`
	Replication int    `env:"REPLICATION" envDefault:"3" desc:"replicas of a new topic; 1 on a single broker"`
	MinISR      int    `env:"MIN_ISR" envDefault:"2" desc:"replicas that must hold a message before it counts as sent"`
}

// nameCharacters are the characters that Kafka allows in the name of a topic.
const nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// maxPrefix, in characters, leaves space for the longest topic name within Kafka's 249 characters.
const maxPrefix = 200

// Validate returns every invalid setting, by the name of its variable. It reads the TLS files.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	c.validateConnection(&check)
	if strings.Trim(c.TopicPrefix, nameCharacters) != "" || len(c.TopicPrefix) > maxPrefix {
		check.Add("TOPIC_PREFIX", "invalid", "%q: at most %d of a-z A-Z 0-9 . _ -", c.TopicPrefix, maxPrefix)
	}
	check.Range(c.Partitions >= 1 && c.Partitions <= 10_000, "PARTITIONS", "%d is not between 1 and 10000", c.Partitions)
	check.Range(c.Replication >= 1 && c.Replication <= 100, "REPLICATION", "%d is not between 1 and 100", c.Replication)
	check.Range(c.MinISR >= 1 && c.MinISR <= c.Replication, "MIN_ISR",
		"%d is not between 1 and REPLICATION (%d)", c.MinISR, c.Replication)
	return check.Fields()
}

func (c Config) validateConnection(check *fault.Checker) {
	check.Check(len(c.Brokers) > 0, "BROKERS", "required", "at least one broker is needed")
	for _, b := range c.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			check.Add("BROKERS", "invalid", "%q is not host:port", b)
		}
	}
	v, err := sarama.ParseKafkaVersion(c.Version)
	switch {
	case err != nil:
		check.Add("VERSION", "invalid", "%q is not a Kafka version such as 2.8.0", c.Version)
	case !v.IsAtLeast(sarama.V2_1_0_0):
		check.Add("VERSION", "out_of_range", "%s is older than 2.1.0, the oldest version that Kafka 4 supports", c.Version)
	}
	check.Check(strings.TrimSpace(c.ClientID) != "", "CLIENT_ID", "required", "a name is needed")
	c.validateTLS(check)
	c.validateLogin(check)
}

func (c Config) validateTLS(check *fault.Checker) {
	if !c.TLSEnabled {
		check.Check(c.TLSCAFile+c.TLSCertFile+c.TLSKeyFile+c.TLSServerName == "", "TLS_ENABLED", "invalid",
			"other TLS settings are given, but TLS is off")
		return
	}
	if _, err := c.authorities(); err != nil {
		check.Add("TLS_CA_FILE", "bad_file", "%v", err)
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		check.Add("TLS_CERT_FILE", "invalid", "TLS_CERT_FILE and TLS_KEY_FILE go together")
	} else if _, err := c.certificates(); err != nil {
		check.Add("TLS_CERT_FILE", "bad_file", "%v", err)
	}
}

func (c Config) validateLogin(check *fault.Checker) {
	switch c.SASLMechanism {
	case "":
		check.Check(c.SASLUser+c.SASLPassword == "", "SASL_MECHANISM", "required",
			"a user or password is given, but no mechanism")
	case mechanismPlain, mechanismScram256, mechanismScram512:
		check.Check(c.SASLUser != "", "SASL_USER", "required", "%s needs a user", c.SASLMechanism)
		check.Check(c.SASLPassword != "", "SASL_PASSWORD", "required", "%s needs a password", c.SASLMechanism)
	default:
		check.Add("SASL_MECHANISM", "invalid", "%q is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", c.SASLMechanism)
	}
}

// Name returns the name of a topic or group on the cluster: the prefix, followed by name.
func (c Config) Name(topicOrGroup string) string { return c.TopicPrefix + topicOrGroup }
