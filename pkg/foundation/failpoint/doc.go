// Package failpoint crashes a program at a named step, so that a test can check the recovery from a crash at that step.
//
// [Hit] does nothing and costs nothing, unless the program is built with -tags failpoint. Then the environment variable
// VITRINE_FAILPOINT names the steps at which the program kills itself, as a power failure would: no deferred call runs, no
// connection is closed and no log is flushed. Released programs are built without the tag, so no setting can crash them.
//
//	VITRINE_FAILPOINT=worker.fetched           is killed when an image has been downloaded for the first time
//	VITRINE_FAILPOINT=worker.fetched:3         the third time
//	VITRINE_FAILPOINT=worker.fetched=stop      stops (SIGSTOP), and continues after SIGCONT
//	VITRINE_FAILPOINT=kafka.handled,kafka.marked:2   at the step that is reached first
//
// The steps are the constants of type [Name]. A test checks that the code has exactly one call of Hit for each of them, and
// that a crash test in pkg/test/system uses it.
package failpoint
