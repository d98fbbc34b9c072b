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

// BridgeLogger passes sarama's log lines to log, at debug level: this package itself logs the errors that sarama returns.
// sarama has one logger per process, so a program calls BridgeLogger once, in main, before any other function of this
// package.
func BridgeLogger(log *zap.Logger) {
	sarama.Logger = bridge{log.Named("sarama").WithOptions(zap.AddCallerSkip(1)).Sugar()}
}

type bridge struct{ log *zap.SugaredLogger }

func (b bridge) Print(v ...any)                 { b.log.Debug(v...) }
func (b bridge) Printf(format string, v ...any) { b.log.Debugf(format, v...) }
func (b bridge) Println(v ...any)               { b.log.Debug(v...) }

// saramaConfig returns the settings of a client: those that all clients share, and those that set adds. It reads the TLS
// files.
func (c Config) saramaConfig(kind string, set func(*sarama.Config)) (*sarama.Config, error) {
	s := sarama.NewConfig()
	version, err := sarama.ParseKafkaVersion(c.Version)
	if err != nil {
		return nil, fmt.Errorf("parse Kafka version: %w", err)
	}
	s.Version = version
	s.ClientID = c.ClientID
	// The client requests the metadata of our own topics only. On a shared cluster the full list is large, and with it
	// sarama.NewClient waits for a broker.
	s.Metadata.Full = false
	// A misspelt topic must fail instead of being created with one partition and one replica.
	s.Metadata.AllowAutoTopicCreation = false
	if c.TLSEnabled {
		s.Net.TLS.Enable = true
		if s.Net.TLS.Config, err = c.tlsConfig(); err != nil {
			return nil, err
		}
	}
	c.login(s)
	set(s)
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("check %s settings: %w", kind, err)
	}
	return s, nil
}

func (c Config) tlsConfig() (*tls.Config, error) {
	roots, err := c.authorities()
	if err != nil {
		return nil, err
	}
	certificates, err := c.certificates()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName, RootCAs: roots, Certificates: certificates,
	}, nil
}

// authorities reads the CA file and returns the CA certificates for the brokers. nil means the system's roots.
func (c Config) authorities() (*x509.CertPool, error) {
	pool, err := tlsroots.Pool(c.TLSCAFile)
	if err != nil {
		return nil, fmt.Errorf("read Kafka's CA file: %w", err)
	}
	return pool, nil
}

// certificates returns the client certificate, if one is configured. It reads the files.
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

// withDialer returns a copy of s that dials through conns, and whose retries do not wait after conns.closeAll.
func withDialer(s *sarama.Config, conns *connTracker) *sarama.Config {
	c := *s
	c.Net.Proxy.Enable = true
	c.Net.Proxy.Dialer = conns
	c.Metadata.Retry.BackoffFunc = conns.backoff(metadataBackoff)
	c.Producer.Retry.BackoffFunc = conns.backoff(produceBackoff)
	c.Producer.Transaction.Retry.BackoffFunc = conns.backoff(metadataBackoff)
	return &c
}

const (
	dialTimeout     = time.Second
	metadataBackoff = 100 * time.Millisecond
	produceBackoff  = 100 * time.Millisecond
)
