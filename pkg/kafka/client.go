package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
	"go.uber.org/zap"
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
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
	if c.TLSCAFile != "" {
		pem, err := os.ReadFile(c.TLSCAFile)
		if err != nil {
			return nil, fmt.Errorf("read Kafka's authority: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read Kafka's authority: no certificate in %s", c.TLSCAFile)
		}
	}
	if c.TLSCertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
		if err != nil {
			return nil, fmt.Errorf("read Kafka's client certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
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

// over returns a copy of s whose connections go over w, with the timeouts and metadata retries of callers that wait.
func over(s *sarama.Config, w *wire) *sarama.Config {
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
