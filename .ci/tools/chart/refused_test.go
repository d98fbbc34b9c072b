package chart_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/strvals"
)

// refused are invalid values, set over those of development, with the part of the error that names the key.
var refused = []struct{ set, says string }{
	// Refused by the schema: misspelt, of the wrong type or out of range.
	{"replicas=3", "replicas"},
	{"api.replica=3", "replica"},
	{"api.replicas=three", "replicas"},
	{"api.replicas=-1", "replicas"},
	{"api.image.repo=x", "repo"},
	{"api.image.digest=abc", "digest"},
	{"api.autoscaling.maxReplicas=0", "maxReplicas"},
	{"api.autoscaling.targetCPUUtilizationPercentage=0", "targetCPUUtilizationPercentage"},
	{"api.service.type=Ingress", "type"},
	{"api.service.port=70000", "port"},
	{"api.resources.limit.memory=1Gi", "limit"},
	{"api.shutdown.grace=soon", "grace"},
	{"api.extraEnv[0].value=x", "extraEnv"},
	{"worker.codecChildren=-1", "codecChildren"},
	{"worker.codecMemory=plenty", "codecMemory"},
	{"worker.autoscaling.lagThreshold=0", "lagThreshold"},
	{"worker.autoscaling.pollingInterval=0", "pollingInterval"},
	{"worker.autoscaling.scaleToZero=perhaps", "scaleToZero"},
	{"worker.autoscaling.enabled=true", "enabled"},
	{"keda=true", "keda"},
	{"image.pullPolicy=Sometimes", "pullPolicy"},
	{"log.level=loud", "level"},
	{"fullnameOverride=Vitrine_1", "fullnameOverride"},
	{"nameOverride=Vitrine_1", "nameOverride"},
	{"commonLabels.a.b=c", "commonLabels"},
	{"api.podDisruptionBudget.maxUnavailable=0", "maxUnavailable"},
	{"worker.podDisruptionBudget.maxUnavailable=0%", "maxUnavailable"},
	{"setup.revision=2", "revision"},
	{rendition(0, "a") + ",pipeline.renditions[0].formats[0].quality=80", "quality"},
	{"pipeline.renditions[0].width=0", "width"},
	{"pipeline.fetch.allowCIDRs[0]=10.0.0.0/8", "allowCIDRs"},
	{"pipelineBounds.allowCIDRs[0]=10.0.0.0", "allowCIDRs"},
	{"pipelineBounds.allowPorts[0]=0", "allowPorts"},
	{"pipelineBounds.maxPixels=0", "maxPixels"},
	{"pipelineFrom=cluster", "pipelineFrom"},
	{"pipelineName=Photos", "pipelineName"},
	{"controller.replicas=0", "replicas"},
	{"ingress.hosts[0]=a", "hosts"},
	{"networkPolicy.egress[0].to=x", "egress"},
	{"postgres.external.sslMode=sometimes", "sslMode"},
	{"postgres.external.port=0", "port"},
	{"postgres.external.password=secret", "password"},
	{"postgres.external.cidrs[0]=here", "cidrs"},
	{"postgres.operator.instances=0", "instances"},
	{"kafka.topics.partitions=0", "partitions"},
	{"kafka.external.sasl.mechanism=GSSAPI", "mechanism"},
	{"kafka.dev.replicas=2", "replicas"},
	{"redis.dev.nodes=2", "nodes"},
	{"redis.operator.enabled=true", "operator"},
	{"s3.bucket=UPPER", "bucket"},
	{"s3.originalsBucket=UPPER", "originalsBucket"},
	{"s3.external.secretKey=secret", "secretKey"},
	{"monitoring.prometheusRule.enable=true", "enable"},
	// Refused by the templates: combinations of several keys.
	{"postgres.external.enabled=true", "postgres: enable exactly one of"},
	{"s3.originalsBucket=media", "s3.originalsBucket: must not be s3.bucket"},
	{"s3.originalsBucket=,pipeline.originals.keep=true", "pipeline.originals.keep: needs s3.originalsBucket"},
	{"worker.autoscaling.minReplicas=5", "worker.autoscaling.minReplicas: 5"},
	{"worker.autoscaling.fallback.replicas=5", "worker.autoscaling.fallback.replicas: 5"},
	{"worker.autoscaling.maxReplicas=13", "worker.autoscaling.maxReplicas: 13"},
	{"keda.enabled=false,worker.replicas=13", "worker.replicas: 13"},
	{"keda.enabled=false,worker.autoscaling.scaleToZero=true", "worker.autoscaling.scaleToZero"},
	{"worker.shutdown.grace=20s", "worker.shutdown.grace"},
	{"worker.extraEnv[0].name=VITRINE_PIPELINE_MAX_BYTES,worker.extraEnv[0].value=9B", "pipelineBounds"},
	{"pipelineBounds.maxBytes=257Mi", "pipelineBounds.maxBytes: 257Mi"},
	{"pipelineBounds.maxDeadline=11m", "pipelineBounds.maxDeadline: 11m"},
	{"pipelineBounds.maxTimeout=61m", "pipelineBounds.maxTimeout: 61m"},
	{"pipelineBounds.maxAge=721h", "pipelineBounds.maxAge: 721h"},
	{"pipelineBounds.maxRenditions=2", "pipeline.renditions: 3"},
	{"pipeline.limits.maxBytes=26Mi,pipelineBounds.maxBytes=25Mi", "pipeline.limits.maxBytes: 26Mi"},
	{"pipelineBounds.maxPixels=49999999", "pipeline.limits.maxPixels"},
	{"pipeline.limits.deadline=61s", "pipelineBounds.maxDeadline (1m)"},
	{"pipeline.fetch.timeout=2m", "pipelineBounds.maxTimeout (1m)"},
	{"pipelineBounds.maxPerHost=3", "pipeline.fetch.perHost"},
	{"pipelineBounds.maxAge=23h", "pipeline.retry.maxAge"},
	{"worker.codecChildren=0", "worker.codecChildren"},
	{"worker.resources.limits.memory=1Gi", "worker.resources.limits.memory"},
	{"api.shutdown.grace=20s", "api.shutdown.grace"},
	{"api.autoscaling.enabled=true,api.autoscaling.minReplicas=11", "api.autoscaling.minReplicas"},
	{"api.autoscaling.enabled=true,api.resources.requests=null", "api.resources.requests.cpu"},
	{"ingress.host=", "ingress.host"},
	{"ingress.media.path=/photos", "ingress.media.path"},
	{rendition(0, "a") + "," + rendition(1, "a"), `pipeline.renditions: "a" is there twice`},
	{"kafka.topics.minInsyncReplicas=2", "kafka.topics.minInsyncReplicas"},
	{"s3.dev.enabled=false,s3.external.enabled=true,s3.external.endpoint=https://10.0.0.5:9000", "ingress.media.service.name"},
	{"s3.dev.enabled=false,s3.external.enabled=true,s3.external.endpoint=https://[fd00::5]:9000", "ingress.media.service.name"},
}

// rendition returns valid values of a rendition.
func rendition(i int, name string) string {
	at := fmt.Sprintf("pipeline.renditions[%d]", i)
	return at + ".name=" + name + "," + at + ".width=9," + at + ".formats[0].format=png"
}

func TestValues(t *testing.T) {
	t.Parallel()
	t.Run("refused_renders_differ_only_in_the_wrong_value", testValuesRefusedRendersDifferOnlyInTheWrongValue)
	t.Run("error_names_the_key", testValuesErrorNamesTheKey)
	t.Run("global_accepts_any_key", testValuesGlobalAcceptsAnyKey)
	t.Run("defaults_require_servers", testValuesDefaultsRequireServers)
}

func testValuesRefusedRendersDifferOnlyInTheWrongValue(t *testing.T) {
	t.Parallel()
	values, err := strvals.Parse(rendition(0, "a") + "," + rendition(1, "b"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := render(values, filepath.Join(chartDir, "values-dev.yaml")); err != nil {
		t.Error(err)
	}
}

func testValuesErrorNamesTheKey(t *testing.T) {
	t.Parallel()
	for _, row := range refused {
		t.Run(row.set, func(t *testing.T) {
			t.Parallel()
			values, err := strvals.Parse(row.set)
			if err != nil {
				t.Fatal(err)
			}
			_, err = render(values, filepath.Join(chartDir, "values-dev.yaml"))
			if err == nil {
				t.Fatal("got no error")
			}
			if !strings.Contains(err.Error(), row.says) {
				t.Errorf("got %q, want it to name %q", err, row.says)
			}
		})
	}
}

// The values "global" belong to other charts, and to a parent chart.
func testValuesGlobalAcceptsAnyKey(t *testing.T) {
	t.Parallel()
	values, err := strvals.Parse("global.storageClass=fast,global.other.deep=1,enabled=true")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := render(values, filepath.Join(chartDir, "values-dev.yaml")); err != nil {
		t.Error(err)
	}
}

// The default values cannot be installed: the user has to choose the servers, and the error describes how.
func testValuesDefaultsRequireServers(t *testing.T) {
	t.Parallel()
	_, err := render(nil)
	if err == nil {
		t.Fatal("got no error")
	}
	for _, name := range []string{"postgres", "kafka", "redis", "s3"} {
		if !strings.Contains(err.Error(), name+": enable exactly one of "+name+".dev.enabled") {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
}
