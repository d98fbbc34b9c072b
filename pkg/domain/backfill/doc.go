// Package backfill makes the renditions of existing images again, behind live traffic: because the pipeline has changed, or
// because an operator selects images.
//
// A [Backfill] is a row of the database. A [Manager] estimates, proposes, approves and ends backfills. A [Walker], which
// runs in every api process, carries out the one that is running: in steps under a lease it goes through the images by id
// and gives those that are selected a job of the class catalog.BackfillClass with the frozen target. The row of an image,
// once it is locked, decides: it must be idle, selected, and not tried by this backfill.
//
// # Passes
//
// Ids are committed out of order, jobs are dropped while a backfill is suspended, and an image in work may come out as it
// was. So the walk begins again at the first id when all of its jobs have ended, until a pass has found nothing: then the
// backfill is complete. It begins when every api process has the target in force, because later requests then name the
// target.
//
// # Counts
//
// A transaction that requests, finishes, fails or drops an image writes a catalog.BackfillEvent. The walk adds the events to
// the counts. What was requested and neither ended nor has a job any more was taken over by a client, or deleted: it is
// skipped.
//
// # Canaries
//
// A [Canary] tries a backfill that does not run yet on random images. Its samples are rows, which a manager inserts. The
// walk sends them to the workers, sets the report from their outcomes, and drops them when the report is saved. An attempt
// at a sample writes objects of its own, whose deletion is scheduled before.
//
// # Errors
//
// Every step may be repeated. An error of a step is counted and logged, and the step is repeated by any process when its
// lease has ended. Errors of a Manager have kinds; those of the kind fault.Invalid name fields.
package backfill
