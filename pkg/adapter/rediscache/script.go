package rediscache

// What a script answers.
const (
	scriptStored  = 1 // written, or the same was there
	scriptNewer   = 2 // left alone: what is there is newer (for Forget: as new)
	scriptRefused = 3 // Redis would not store it, so the old value was taken away instead (for Fill: unless a tombstone)
)

// scriptHead is the beginning of both scripts. held returns the version under the key, or nil when nothing is there or
// what is there is not a frame. put stores a frame, or deletes what it cannot replace unless told to keep it: an
// out-of-memory server refuses SET but not DEL. If it refuses DEL too (a replica does), that error is the script's.
const scriptHead = `
local function held(head)
  return string.match(head, '^V[dmt](' .. string.rep('%d', 20) .. ')')
end
local function put(frame, life, keep)
  local reply = redis.pcall('SET', KEYS[1], frame, 'PX', life)
  if reply.err then
    if not keep then
      redis.call('DEL', KEYS[1])
    end
    return 3
  end
  return 1
end
`

// fillScript stores a frame (ARGV 1) of a version (2) for some milliseconds (3). Its first bytes, as many as ARGV 4 says,
// name kind, version and tag: a frame that begins like that is the same document, and is left to its remaining life. A
// tombstone that cannot be replaced stays: without it a slow reader could fill in what is older.
const fillScript = scriptHead + `
local frame, version, life, name = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local head = redis.call('GETRANGE', KEYS[1], 0, name - 1)
local there = held(head)
if there and there > version then
  return 2
end
if head == string.sub(frame, 1, name) then
  return 1
end
return put(frame, life, there and string.sub(head, 2, 2) == 't')
`

// invalidateScript stores a tombstone (ARGV 1) of a version (2) for some milliseconds (3) in place of anything older.
const invalidateScript = scriptHead + `
local frame, version, life = ARGV[1], ARGV[2], ARGV[3]
local there = held(redis.call('GETRANGE', KEYS[1], 0, 21))
if there and there >= version then
  return 2
end
return put(frame, life, false)
`
