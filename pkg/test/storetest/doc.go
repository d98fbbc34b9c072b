// Package storetest is what every store of the catalogue has to pass: products, intents, overdue work and the outbox, as
// their interfaces promise them.
//
// Half of it is about two things at once: pictures that finish together, an attempt that adopts its objects while the
// compensator dooms them, relays that drain side by side. Each of those fails when the lock that guards it is taken out.
// Lists are compared with a brute-force answer over random products and filters.
//
// The suite never sleeps and moves no clock: what has to be in the past is written with a time in the past. A failure names
// the promise that was broken.
package storetest
