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

// bridged makes this test binary the child of TestSaramasLinesGoToTheLog.
const bridged = "VITRINE_TEST_BRIDGED"

// sarama has one logger for the whole process, so this needs a process of its own.
func TestSaramasLinesGoToTheLog(t *testing.T) {
	t.Parallel()
	if os.Getenv(bridged) != "" {
		encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
		kafka.BridgeLogger(zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stdout), zap.DebugLevel)))
		p, _ := newPublisher(t, local([]string{"127.0.0.1:1"}, ""))
		allUnavailable(t, p.Publish(t.Context(), messages(1)))
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestSaramasLinesGoToTheLog$")
	cmd.Env = append(os.Environ(), bridged+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), `"logger":"sarama"`) || !strings.Contains(string(out), `"level":"debug"`) {
		t.Errorf("got no line of sarama's at debug level:\n%s", out)
	}
}
