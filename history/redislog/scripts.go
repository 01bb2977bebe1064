package redislog

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"strings"

	"github.com/redis/rueidis"
)

// The keys of a log are:
//
//	{PREFIX:NAME}:head   a hash, of the fields in names
//	{PREFIX:NAME}:log    a stream. The id of an entry is EPOCH-SEQ*1024. A mark
//	                     is no entry: it makes readers look, and has an id
//	                     after that of the last entry.
//	{PREFIX:NAME}:pins   a hash: by key, the number of the entry that gave the
//	                     value, a space, and the value
//	{PREFIX:NAME}:w:W    the last change of the writer W, with its result
//
// All names of lines are decimal texts, because a number of Lua has 53 bits.

// begin is the beginning of each script that writes. It makes head the state,
// and begins a line if the server is not the one that wrote it last: its
// master_replid changes with each promotion and each restart.
const begin = `
local names = {'id','line','epoch','last','run','prev','skips','noteepoch','noteseqs','count','bytes','at','mark','finished','dkid','note','dk'}
local was = redis.call('HMGET', KEYS[1], unpack(names, 1, 15)) -- note and dk are long, and only written
local h = {}
for i = 1, 15 do h[names[i]] = was[i] or '' end
for _, name in ipairs({'epoch','last','noteepoch','count','bytes','at','mark'}) do h[name] = tonumber(h[name]) or 0 end
local function text(n) return string.format('%.0f', n) end
local function cut(list)
  local n = select(2, string.gsub(list, ';', ''))
  while n > 8 do list = string.gsub(list, '^[^;]*;', ''); n = n - 1 end
  return list
end
local function save(h)
  local changed = {}
  for i, name in ipairs(names) do
    local x = h[name]
    if type(x) == 'number' then x = text(x) end
    if x and x ~= was[i] then changed[#changed+1] = name; changed[#changed+1] = x end
  end
  if #changed > 0 then redis.call('HSET', KEYS[1], unpack(changed)) end
end
local function id(h, seq, mark) return string.format('%.0f-%.0f', h.epoch, seq * 1024 + mark) end
local function wake(h)
  h.mark = h.mark + 1
  redis.call('XADD', KEYS[2], id(h, h.last, h.mark), 'm', '1')
end
local info = redis.call('INFO', 'replication')
local run = string.match(info, 'master_replid:(%w+)')
if not run then return {'NOINFO'} end
local renewed = false
local function renew(name, dk, dkid)
  if h.id == '' then
    redis.call('DEL', KEYS[2])
    if KEYS[4] then redis.call('DEL', KEYS[4]) end
    h.id, h.line, h.epoch, h.run, h.dk, h.dkid = name, name, 1, run, dk, dkid
    renewed = true
  elseif h.run ~= run then
    h.prev = cut(h.prev .. h.line .. ',' .. text(h.epoch) .. ',' .. text(h.last) .. ';')
    h.skips = cut(h.skips .. text(h.last) .. ',1048576;')
    h.last, h.line, h.run, h.mark = h.last + 1048576, name, run, 0
    renewed = true
  end
end
-- drop drops the oldest entries: those up to seq, and more by the limits.
local function drop(seq, keep, trimat, maxbytes)
  if h.bytes < 0 and maxbytes > 0 then
    h.bytes = 0
    for _, e in ipairs(redis.call('XRANGE', KEYS[2], '-', '+')) do
      if e[2][1] ~= 'm' then h.bytes = h.bytes + e[2][4] end
    end
  end
  local count, bytes, first, from = h.count, h.bytes, nil, '-'
  local few = 0
  if count > trimat then few = count - keep end
  local over = maxbytes > 0 and bytes > maxbytes
  if seq == 0 and not over then
    if few == 0 then return false end
    if maxbytes == 0 and redis.call('XLEN', KEYS[2]) == count then -- no marks
      redis.call('XTRIM', KEYS[2], 'MAXLEN', '=', keep)
      h.count, h.bytes, h.note, h.noteseqs = keep, -1, '', ''
      return true
    end
  end
  local most = maxbytes - math.floor(maxbytes / 6)
  while true do
    -- One more than go by their number: the next one stays, if no other limit drops it.
    local size = math.min(math.max(few + 1, 16), 200)
    local page = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', size)
    for _, e in ipairs(page) do
      from = '(' .. e[1]
      if e[2][1] ~= 'm' then
        local s = math.floor(tonumber(string.match(e[1], '-(%d+)$')) / 1024)
        local gone = s <= seq or few > 0
        if not gone and over and bytes > most and count > 1 then gone = true end
        if not gone then first = e[1]; break end
        count = count - 1
        if bytes >= 0 then bytes = bytes - e[2][4] end
        if few > 0 then few = few - 1 end
      end
    end
    if first or #page < size then break end
  end
  if count == h.count then return false end
  h.count, h.bytes, h.note, h.noteseqs = count, bytes, '', ''
  if first then redis.call('XTRIM', KEYS[2], 'MINID', '=', first)
  else redis.call('DEL', KEYS[2]); wake(h) end
  return true
end
`

// commit makes a change. See commitArgs for its arguments, and readCommitted
// for its result.
const commit = `
local line, number, dk, dkid = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local what, keep, trimat, maxbytes = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local ifline, ifepoch, iflast = ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11])
local note, notes, newdk, newdkid, pins = ARGV[12], ARGV[13], ARGV[14], ARGV[15], ARGV[16]
local record = redis.call('GET', KEYS[3])
if record then
  local n, l, e, s, d = string.match(record, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  if tonumber(n) == number then return {'OK', l, e, s, d} end
  if tonumber(n) > number then return {'STALE'} end
end
renew(line, dk, dkid)
local function done(deleted)
  if renewed and what ~= 'r' and deleted == 0 then wake(h) end
  save(h)
  local result = {h.line, text(h.epoch), text(h.last), text(deleted)}
  redis.call('SET', KEYS[3], ARGV[2] .. ' ' .. table.concat(result, ' '), 'PX', 86400000)
  return {'OK', unpack(result)}
end
-- refuse answers without the change, but keeps a line that was begun.
local function refuse(why)
  if renewed then wake(h); save(h) end
  return {why, h.dk or redis.call('HGET', KEYS[1], 'dk'), h.dkid}
end
if h.dkid ~= dkid and what ~= 'r' and what ~= 'n' then return refuse('KEY') end
if ifline ~= '' then
  local last, alias = iflast, ifline == h.line
  for l, e, s in string.gmatch(h.prev, '(%d+),(%d+),(%d+);') do
    if l == ifline and tonumber(s) >= iflast then alias = true end
  end
  for after, n in string.gmatch(h.skips, '(%d+),(%d+);') do
    if tonumber(after) >= iflast then last = last + tonumber(n) end
  end
  if not alias or ifepoch ~= h.epoch or last ~= h.last then return refuse('MOVED') end
end
local entries = {}
if what == 'd' then
  local gone, held, deleted, rest = {}, {}, 0, {}
  for i = 17, #ARGV do gone[ARGV[i]] = true end
  local all = redis.call('XRANGE', KEYS[2], '-', '+')
  for _, e in ipairs(all) do
    if e[2][1] ~= 'm' then
      local s = math.floor(tonumber(string.match(e[1], '-(%d+)$')) / 1024)
      if gone[text(s)] then
        held[text(s)] = true
        deleted = deleted + 1
        if h.bytes >= 0 then h.bytes = h.bytes - e[2][4] end
        if string.find(h.noteseqs, ',' .. text(s) .. ',', 1, true) then h.note, h.noteseqs = '', '' end
      else rest[#rest+1] = {s, e[2]} end
    end
  end
  local pinned = redis.call('HGETALL', KEYS[4])
  local unpinned = {}
  for i = 1, #pinned, 2 do
    local s = string.match(pinned[i+1], '^%d+')
    if s ~= '0' and gone[s] then
      redis.call('HDEL', KEYS[4], pinned[i])
      if not held[s] and not unpinned[s] then deleted = deleted + 1 end
      unpinned[s] = true
    end
  end
  if deleted == 0 then return done(0) end
  h.epoch, h.mark, h.count = h.epoch + 1, 0, #rest
  redis.call('DEL', KEYS[2])
  for _, e in ipairs(rest) do redis.call('XADD', KEYS[2], id(h, e[1], 0), unpack(e[2])) end
  wake(h)
  return done(deleted)
end
local n = math.floor((#ARGV - 16) / 2)
if h.finished ~= '' and (n > 0 or what == 'f') then return refuse('FINISHED') end
if what == 'f' then
  h.finished = '1'
  wake(h)
  renewed = false
  return done(0)
end
if what == 'r' then
  redis.call('DEL', KEYS[2], KEYS[4])
  h.epoch, h.mark, h.count, h.bytes = h.epoch + 1, 0, 0, 0
  h.prev, h.skips, h.note, h.noteepoch, h.noteseqs = '', '', note, h.epoch, ''
  h.dk, h.dkid = newdk, newdkid
end
local from = 1
while from <= #pins do
  local head, i, k, d = string.match(pins, '^((%d+),(%d+),(%d+);)', from)
  from = from + #head
  local seq = '0'
  if i ~= '0' then seq = text(h.last + i) end
  local key = string.sub(pins, from, from + k - 1)
  if d == '0' then redis.call('HDEL', KEYS[4], key)
  else redis.call('HSET', KEYS[4], key, seq .. ' ' .. string.sub(pins, from + k, from + k + d - 1)) end
  from = from + k + d
end
if n > 0 then
  local t = redis.call('TIME')
  h.at = math.max(h.at, tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000))
  h.mark = 0
  local at, last, bytes = text(h.at), h.last, 0
  for i = 17, 15 + 2*n, 2 do
    last, bytes = last + 1, bytes + ARGV[i]
    redis.call('XADD', KEYS[2], id(h, last, 0), 't', at, 'n', ARGV[i], 'd', ARGV[i+1])
  end
  for i in string.gmatch(notes, '%d+') do
    if h.noteseqs == '' then h.noteseqs = ',' end
    h.noteseqs = h.noteseqs .. text(h.last + i) .. ','
  end
  h.last, h.count = last, h.count + n
  if h.bytes >= 0 then h.bytes = h.bytes + bytes end
  drop(0, keep, trimat, maxbytes)
end
if what == 'r' and n == 0 then wake(h) end
return done(0)
`

// trim drops the entries up to a number. Its result says whether it is on the
// right server.
const trim = `
if h.id == '' or h.run ~= run then return {'MOVED'} end
if drop(tonumber(ARGV[1]), math.huge, math.huge, 0) then save(h) end
return {'OK'}
`

// look returns the head and, if its argument says so, everything else.
const look = `
local h = redis.call('HMGET', KEYS[1], 'id','line','epoch','last','run','prev','skips','note','noteepoch','finished','dk','dkid')
local info = redis.call('INFO', 'replication')
local t = redis.call('TIME')
local all, pins = {}, {}
if ARGV[1] == 'all' then
  all = redis.call('XRANGE', KEYS[2], '-', '+')
  pins = redis.call('HGETALL', KEYS[3])
end
for i = 1, 12 do h[i] = h[i] or '' end
return {string.match(info, 'master_replid:(%w+)') or '', string.match(info, 'role:(%w+)') or '', t[1], t[2], h, all, pins}
`

// Without the first line, a script that runs out of memory stops half done.
// With it, the engine refuses the script before its first write. An erasure is
// allowed without memory, since it gives memory back.
var (
	appendScript = newScript("#!lua\n" + begin + commit)
	eraseScript  = newScript("#!lua flags=allow-oom\n" + begin + commit)
	trimScript   = newScript("#!lua flags=allow-oom\n" + begin + trim)
	lookScript   = newScript("#!lua flags=no-writes\n" + look)
)

// script is a script that the engine keeps by its hash. In contrast to
// rueidis.Lua, it runs on a dedicated connection too.
type script struct{ text, hash string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:])}
}

func (s *script) exec(ctx context.Context, c rueidis.CoreClient, keys, args []string) rueidis.RedisResult {
	n := int64(len(keys))
	r := c.Do(ctx, c.B().Evalsha().Sha1(s.hash).Numkeys(n).Key(keys...).Arg(args...).Build())
	if err, ok := rueidis.IsRedisErr(r.Error()); ok && strings.HasPrefix(err.Error(), "NOSCRIPT") {
		r = c.Do(ctx, c.B().Eval().Script(s.text).Numkeys(n).Key(keys...).Arg(args...).Build())
	}
	return r
}
