package rediscache

// The replies of the scripts.
const (
	scriptStored  = 1 // stored, or the same document is there already
	scriptNewer   = 2 // unchanged: the stored version is newer (for Invalidate: newer or equal)
	scriptRefused = 3 // Redis refused to store, so the script deleted the old value (a Fill keeps a tombstone)
)

// scriptHead begins both scripts. stored_version returns the version under the key, or nil if the key is absent or its value
// is not a frame. put stores a frame. If Redis refuses, put deletes the old value unless keep is set: a server without
// memory refuses SET but not DEL. If DEL fails too (a replica refuses it), the script fails with that error.
const scriptHead = `
local function stored_version(head)
  return string.match(head, '^V[dmt](' .. string.rep('%d', 20) .. ')')
end
local function put(frame, ttl, keep)
  local reply = redis.pcall('SET', KEYS[1], frame, 'PX', ttl)
  if reply.err then
    if not keep then
      redis.call('DEL', KEYS[1])
    end
    return 3
  end
  return 1
end
`

// fillScript stores a frame (ARGV 1) of a version (ARGV 2) for some milliseconds (ARGV 3). The first ARGV 4 bytes of a frame
// hold kind, version and tag: a stored frame that begins with the same bytes is the same document and keeps its remaining
// TTL. A tombstone that cannot be replaced stays, because without it a slow reader could store an older document.
const fillScript = scriptHead + `
local frame, version, ttl, identity = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local head = redis.call('GETRANGE', KEYS[1], 0, identity - 1)
local stored = stored_version(head)
if stored and stored > version then
  return 2
end
if head == string.sub(frame, 1, identity) then
  return 1
end
return put(frame, ttl, stored and string.sub(head, 2, 2) == 't')
`

// invalidateScript replaces every older value by a tombstone (ARGV 1) of a version (ARGV 2) for some milliseconds (ARGV 3).
const invalidateScript = scriptHead + `
local frame, version, ttl = ARGV[1], ARGV[2], ARGV[3]
local stored = stored_version(redis.call('GETRANGE', KEYS[1], 0, 21))
if stored and stored >= version then
  return 2
end
return put(frame, ttl, false)
`
