package imaging

// Config configures libvips. It is not read from the environment: the parent of a codec configures it.
type Config struct {
	// Threads is the number of threads that libvips uses for one image; below 1 means 1. Parallelism comes from several
	// processes: one thread per process avoids races in liborc 0.4.33, and zero in govips means a thread for each CPU.
	Threads int
	// Warn receives the warnings of libvips, one line each; nil discards them.
	Warn func(message string)
}
