package imaging

// Config is what libvips is started with. It has no environment: a codec is configured by its parent.
type Config struct {
	// Threads that libvips uses for one picture; below 1 means 1. Parallelism comes from several processes: one thread a
	// process avoids races in liborc 0.4.33, and govips' own zero would mean a thread for each CPU.
	Threads int
	// Warn receives libvips' warnings, one line each; nil drops them.
	Warn func(message string)
}
