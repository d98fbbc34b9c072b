package catalog

import (
	"time"

	"vitrine.io/pkg/fault"
)

// Config bounds the service's waits.
type Config struct {
	LoadTimeout   time.Duration `env:"LOAD_TIMEOUT" envDefault:"5s" desc:"longest read from Postgres that fills the cache"`
	ForgetTimeout time.Duration `env:"FORGET_TIMEOUT" envDefault:"250ms" desc:"longest wait for Redis after a commit"`
	RetireGrace   time.Duration `env:"RETIRE_GRACE" envDefault:"1h" desc:"how long replaced renditions stay; longer than the cache TTL"`
}

// Validate returns every wrong field.
func (c Config) Validate() []fault.Field {
	var wrong []fault.Field
	for name, d := range map[string]time.Duration{
		"LOAD_TIMEOUT": c.LoadTimeout, "FORGET_TIMEOUT": c.ForgetTimeout, "RETIRE_GRACE": c.RetireGrace,
	} {
		if d <= 0 {
			wrong = append(wrong, fault.Field{Pointer: name, Code: "out_of_range", Detail: "must be above zero"})
		}
	}
	return wrong
}
