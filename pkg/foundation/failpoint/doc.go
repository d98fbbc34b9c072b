// Package failpoint crashes a program at a named step, so that a test can show what is left and what mends it.
//
// [Hit] does nothing and costs nothing, unless a program is built with -tags failpoint: then VITRINE_FAILPOINT says at
// which steps it kills itself, as a power cut would. No deferred call runs, no connection is closed, no log is flushed.
// Programs that are shipped are never built like that, so no setting can make them do it.
//
//	VITRINE_FAILPOINT=worker.fetched           dies the first time that a picture has been fetched
//	VITRINE_FAILPOINT=worker.fetched:3         the third time
//	VITRINE_FAILPOINT=worker.fetched=stop      stops (SIGSTOP), and goes on from there after SIGCONT: a zombie
//	VITRINE_FAILPOINT=kafka.handled,kafka.marked:2   whichever comes first
//
// The names are the constants below and nothing else: a test holds each to one place in the code and to a crash test in
// cmd.
package failpoint
