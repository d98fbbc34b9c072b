package kafka_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/adapter/kafka"
)

// childEnv makes this test binary the child of TestBridgeLogger.
const childEnv = "VITRINE_TEST_BRIDGED"

// sarama has one logger per process, so the test needs a process of its own.
func TestBridgeLogger(t *testing.T) {
	t.Parallel()
	if os.Getenv(childEnv) != "" {
		encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
		kafka.BridgeLogger(zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stdout), zap.DebugLevel)))
		p, _ := newPublisher(t, local([]string{"127.0.0.1:1"}, ""))
		allUnavailable(t, p.Publish(t.Context(), messages(1)))
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestBridgeLogger$")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), `"logger":"sarama"`) || !strings.Contains(string(out), `"level":"debug"`) {
		t.Errorf("got no line of sarama at debug level:\n%s", out)
	}
}
