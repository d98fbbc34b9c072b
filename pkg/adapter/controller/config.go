package controller

import (
	"regexp"
	"time"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
)

// Config names what a controller works on. The names of the variables are relative to VITRINE_CONTROLLER_.
type Config struct {
	Namespace  string        `env:"NAMESPACE" desc:"namespace of the installation; the controller needs no other"`
	Pipeline   string        `env:"PIPELINE" envDefault:"default" desc:"name of the ImagePipeline that the pods use"`
	ConfigMap  string        `env:"CONFIG_MAP" desc:"name of the ConfigMap that the pods mount; the controller writes it"`
	Lease      string        `env:"LEASE" desc:"name of the Lease of the leader among several replicas"`
	Kubeconfig string        `env:"KUBECONFIG" desc:"file with the address of the API server; empty: that of the pod's ServiceAccount"`
	Poll       time.Duration `env:"POLL" envDefault:"10s" desc:"interval of reads of the heartbeats and the backfills in Postgres"`
	Backfills  bool          `env:"BACKFILLS" envDefault:"true" desc:"make and carry out ImageBackfills; false in all but one of the installations that share a database"`
	LeaseTime  time.Duration `env:"LEASE_TIME" envDefault:"15s" desc:"time after which another replica takes over from a leader that has crashed"`
}

var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Validate returns every invalid setting, by the name of its variable.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	for _, v := range []struct{ variable, value string }{
		{"NAMESPACE", c.Namespace}, {"PIPELINE", c.Pipeline}, {"CONFIG_MAP", c.ConfigMap}, {"LEASE", c.Lease},
	} {
		check.Check(name.MatchString(v.value), v.variable, "bad_form", "needs the name of an object: 1 to 63 of a-z, 0-9 and -")
	}
	check.Range(c.Poll >= 100*time.Millisecond, "POLL", "at least 100ms")
	check.Range(c.LeaseTime >= time.Second, "LEASE_TIME", "at least 1s")
	return check.Fields()
}

// BoundsConfig has the bounds that the pods have, by the same variables. Their names are relative to VITRINE_PIPELINE_.
type BoundsConfig struct {
	Bounds pipeline.Bounds
}
