package kafka

import (
	"fmt"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
)

// conversation implements sarama.SCRAMClient for one login.
type conversation struct {
	hash scram.HashGeneratorFcn
	*scram.ClientConversation
}

// newConversation returns the generator that sarama calls for each connection.
func newConversation(hash scram.HashGeneratorFcn) func() sarama.SCRAMClient {
	return func() sarama.SCRAMClient { return &conversation{hash: hash} }
}

// Begin starts a login. Step and Done come from the embedded conversation.
func (c *conversation) Begin(user, password, authorization string) error {
	client, err := c.hash.NewClient(user, password, authorization)
	if err != nil {
		return fmt.Errorf("prepare SCRAM login: %w", err)
	}
	c.ClientConversation = client.NewConversation()
	return nil
}
