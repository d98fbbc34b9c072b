// Package rediscache keeps products, ready to be sent, in a Redis Cluster, so that most reads never reach the database.
//
// What is stored for a product is one frame (see frame.go): a version, and either a document, the fact that there is
// none, or a tombstone. Every write is one Lua script on the key's own node, so it is atomic there:
//
//   - Fill(v) replaces nothing, an older version, a tombstone of v or older, or the same version under another tag. A Fill
//     whose read began more than half a tombstone's life ago is dropped before it is sent: the tombstone that would have
//     refused it could have expired.
//   - Forget(v) leaves a tombstone of v in place of anything older. Whoever read before v cannot put it back.
//   - A write that Redis refuses for lack of memory takes the old value away instead; a fill leaves a tombstone where it is.
//
// A hit is one plain GET, or its part of one pipeline with others who ask the same node (see gather.go); the document's
// body is not copied and not unmarshalled. A value under another tag (another
// release's format, another public URL, another epoch) is a miss, but it lies under the same key, so Forget of any release
// reaches it.
//
// When it fails: Redis down or slow means an error after at most Config.Timeout, twice that for a Get that has to wait for
// the one before, which callers treat as a miss. New does
// not need Redis to be there. Reads go to masters only. A failover may lose acknowledged writes, tombstones too; what that
// brings back lives for at most one TTL.
package rediscache
