// Package catalog is what Vitrine is about: users, their products, the products' pictures, and what may happen to each.
//
// Everything that changes a product goes through one method of [Service], and every method is one transaction of the
// [Store] followed by [Cache].Forget. What may happen to a picture is plain Go in transition.go: pure functions on a locked
// product, so the state machine is tested without a database and transitions of one product never interleave.
//
// # One picture's life
//
// A request makes a ticket and queues the picture. Only the holder of the ticket may Begin; Begin raises the picture's
// fence and mints a prefix of its own, so no two attempts ever write the same object. An attempt ends with Finish, Retry,
// Defer, Fail or Release, and each of them acts only if the fence is still the attempt's. Objects of attempts that died are
// found by the intents that Begin wrote, and deleted; Finish adopts its own prefix by removing the intent, in the same
// transaction.
//
// Everything here may happen twice, and the second time changes nothing: a repeated record finds its ticket used, a late
// attempt finds the fence raised, a repeated Finish finds the picture no longer processing.
//
// # Failure
//
// Errors carry a fault kind. [ErrOutcomeUnknown] means that a transaction may have happened: the picture's own transitions
// read the row and find out; a Create reports it to the client. [ErrDone] and [ErrSuperseded] are not faults: they say that
// there is nothing left to do. The cache may fail at any time; nobody who calls this package notices, because the
// product.changed event repeats every Forget.
package catalog
