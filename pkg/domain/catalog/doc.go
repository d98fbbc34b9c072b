// Package catalog holds users, their products, the products' images, and the state machine of an image.
//
// A change of a product is one method of [Service]: one transaction of the [Store], followed by [Cache].Invalidate. The
// transitions of an image are pure functions on a locked product, in transition.go. The state machine is therefore tested
// without a database, and transitions of one product never interleave.
//
// # State machine of an image
//
// A request creates a job and queues the image. Only the holder of the job id may Begin. Begin increments the image's
// fencing token and creates a new prefix, so that no two attempts write the same object. An attempt ends with Finish,
// Retry, Defer, Fail or Release; each of them acts only if the attempt's fencing token is still the image's. Begin
// schedules the deletion of the objects below its prefix, so that the objects of a crashed attempt are deleted. Finish
// cancels that deletion in the transaction that publishes the objects.
//
// Every transition may be repeated without a further effect. A record that is redelivered after the outcome finds that
// its job id was cleared or replaced. A late attempt finds that the fencing token is higher than its own. A repeated
// Finish finds that the image is no longer processing.
//
// # Errors
//
// Every error has a kind, see package fault. [ErrOutcomeUnknown] means that a transaction may have been committed: the
// transitions of an image then read the row and find out, and Create returns the error to the client. [ErrDone] and
// [ErrSuperseded] do not report a problem: they mean that nothing is left to do. The cache may fail at any time without
// an error to the caller, because the product.changed event repeats each invalidation.
package catalog
