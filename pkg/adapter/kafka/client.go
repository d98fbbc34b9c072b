package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/tlsroots"
)

// BridgeLogger sends sarama's own lines to log at debug level. sarama has one logger per process: call this once, in main,
// before anything of this package is made. What matters is logged by this package itself, from the errors it gets.
func BridgeLogger(log *zap.Logger) {
	sarama.Logger = bridge{log.Named("sarama").WithOptions(zap.AddCallerSkip(1)).Sugar()}
}

type bridge struct{ log *zap.SugaredLogger }

func (b bridge) Print(v ...any)                 { b.log.Debug(v...) }
func (b bridge) Printf(format string, v ...any) { b.log.Debugf(format, v...) }
func (b bridge) Println(v ...any)               { b.log.Debug(v...) }

// saramaConfig returns what every client has in common. It reads the TLS files.
func (c Config) saramaConfig() (*sarama.Config, error) {
	s := sarama.NewConfig()
	version, err := sarama.ParseKafkaVersion(c.Version)
	if err != nil {
		return nil, fmt.Errorf("parse Kafka version: %w", err)
	}
	s.Version = version
	s.ClientID = c.ClientID
	// Only our own topics: on a shared cluster the full list is large, and a client made from it must wait for a broker.
	s.Metadata.Full = false
	// A misspelt topic must fail, not appear with one partition and one replica.
	s.Metadata.AllowAutoTopicCreation = false
	if c.TLSEnabled {
		s.Net.TLS.Enable = true
		if s.Net.TLS.Config, err = c.tlsConfig(); err != nil {
			return nil, err
		}
	}
	c.login(s)
	return s, nil
}

func (c Config) tlsConfig() (*tls.Config, error) {
	roots, err := c.authorities()
	if err != nil {
		return nil, err
	}
	own, err := c.certificates()
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName, RootCAs: roots, Certificates: own}, nil
}

// authorities returns who may vouch for the brokers, nil for the system's roots. It reads the file.
func (c Config) authorities() (*x509.CertPool, error) {
	pool, err := tlsroots.Pool(c.TLSCAFile)
	if err != nil {
		return nil, fmt.Errorf("read Kafka's authority: %w", err)
	}
	return pool, nil
}

// certificates returns what the client shows of itself, if anything. It reads the files.
func (c Config) certificates() ([]tls.Certificate, error) {
	if c.TLSCertFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read Kafka's client certificate: %w", err)
	}
	return []tls.Certificate{pair}, nil
}

func (c Config) login(s *sarama.Config) {
	if c.SASLMechanism == "" {
		return
	}
	s.Net.SASL.Enable = true
	s.Net.SASL.User, s.Net.SASL.Password = c.SASLUser, c.SASLPassword
	switch c.SASLMechanism {
	case mechanismScram256:
		s.Net.SASL.Mechanism = sarama.SASLTypeSCRAMSHA256
		s.Net.SASL.SCRAMClientGeneratorFunc = newConversation(scram.SHA256)
	case mechanismScram512:
		s.Net.SASL.Mechanism = sarama.SASLTypeSCRAMSHA512
		s.Net.SASL.SCRAMClientGeneratorFunc = newConversation(scram.SHA512)
	default:
		s.Net.SASL.Mechanism = sarama.SASLTypePlaintext
	}
}

// withDialer returns a copy of s whose connections go over w, with the timeouts and metadata retries of callers that wait.
func withDialer(s *sarama.Config, w *connTracker) *sarama.Config {
	c := *s
	c.Net.Proxy.Enable = true
	c.Net.Proxy.Dialer = w
	c.Metadata.Retry.BackoffFunc = w.backoff(metadataBackoff)
	c.Producer.Retry.BackoffFunc = w.backoff(produceBackoff)
	c.Producer.Transaction.Retry.BackoffFunc = w.backoff(metadataBackoff)
	return &c
}

const (
	dialTimeout     = time.Second
	metadataBackoff = 100 * time.Millisecond
	produceBackoff  = 100 * time.Millisecond
)
