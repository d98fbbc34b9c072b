// Package rediscache caches products as encoded documents in a Redis Cluster, so that most reads do not reach the database.
//
// The value of a product's key is one frame (see frame.go): a version, and either a document, the fact that the product does
// not exist, or a tombstone. Every write is one Lua script on the key's node, so it is atomic:
//
//   - Fill(v) replaces an absent value, an older version, a tombstone of version v or older, and the same version under
//     another tag; it replaces nothing else. A Fill whose read of the database began more than half of TombstoneTTL ago is
//     dropped before it is sent, because the tombstone that would reject it may have expired.
//   - Invalidate(v) replaces every older value by a tombstone of version v. A reader that loaded an older version cannot
//     store it afterwards.
//   - If Redis refuses a write for lack of memory, the script deletes the old value instead. A Fill leaves a tombstone in
//     place.
//
// A read is one GET, or part of one pipeline with concurrent reads from the same node (see batcher.go). The body of a
// document is neither copied nor parsed. A value under another tag (another format, public URL or epoch) is a miss. All tags
// share the key, so an Invalidate by any release reaches the value.
//
// Failure: if Redis is down or slow, a call returns an error after at most Config.Timeout, or twice that for a Get that
// waits for an earlier batch. Callers treat the error as a miss. New does not need Redis to run. Reads go to masters only. A
// failover may lose acknowledged writes, including tombstones; a stale document that it brings back expires after one TTL.
package rediscache
