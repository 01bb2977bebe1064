package redislimit

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"strings"

	"github.com/redis/rueidis"
)

// clock reads the time of the engine, in µs.
const clock = `
local t = call('TIME')
local now = t[1] * 1000000 + t[2]`

// read reads what the engine keeps of the client with a key: the begin of its
// window in µs, 7 bytes; those that count and those that were admitted in the
// window, 4 bytes each; then for each node with open connections its number and
// theirs, 4 bytes each.
//
// A master that takes over may have a slower clock. What lies in the future is
// therefore taken as now. lasting says that the client already lives as long as
// it must, since it had open connections: to set its life again would take a
// tenth of the script's time.
const read = `
  local v = call('GET', key)
  local start, counted, tries, own, open, others, lasting = now, 0, 0, 0, 0, '', false
  local length = v and #v or 0
  if length >= 15 and length % 8 == 7 then
    local s, c, a = parts('>I7I4I4', v)
    if s > now then s = now end
    if now - s < window then
      start, counted, tries = s, c, a
      lasting = length > 15
    end
    for at = 16, length, 8 do
      local m, o = parts('>I4I4', v, at)
      if m == node then own = o
      elseif m > known or living and string.find(living, ' ' .. m .. ' ', 1, true) then
        open = open + o
        others = others .. string.sub(v, at, at + 7)
      end
    end
  end`

// save is the end of give.
const save = `
  local all, left = others, start + window - now
  if own > 0 then all = pack('>I4I4', node, own) .. others end
  if tries == 0 then start = 0 end -- the next connection begins a window
  if all == '' and tries == 0 then call('DEL', key)
  else
    all = pack('>I7I4I4', start, counted, tries) .. all
    if lasting and #all > 15 then call('SET', key, all, 'KEEPTTL')
    else
      left = math.ceil(left / 1000)
      if #all > 15 then left = math.max(left, ` + keepOpen + `) end
      call('SET', key, all, 'PX', left)
    end
  end
`

// keepOpen is the life of a client with open connections, in ms, if no node
// renews it.
const keepOpen = "3600000"

// take decides about connections that were made together, each on its own. Half
// of the time of one alone is the beginning of the script and the clock. KEYS
// are the clients, and then their failures if they may have any. ARGV[1] is the
// number of this node and the highest that it knows, 4 bytes each; the window
// in µs, 7 bytes; the limits, 4 bytes each; and a byte that is 1 to count
// nothing. ARGV[2] has the numbers of the other nodes that live, and ARGV[3]
// the times in µs before which failures do not count, 7 bytes each. Both may be
// left out.
//
// The reasons come in the same order as in a process alone. An answer is the
// reason, 1 byte; what remains, 4 bytes; and the begin of the window and what
// is left of it, or of the penalty, in µs, 7 bytes each. One text costs a third
// of what a list of numbers does.
//
// If another program has stored a list under a key, the script ends there. To
// the node, that is as if the answer had been lost.
const take = `
local call, pack, parts, living, forgiven = redis.call, struct.pack, struct.unpack, ARGV[2], ARGV[3]
local node, known, window, limit, attempts, most, ask = parts('>I4I4I7I4I4I4I1', ARGV[1])
` + clock + `
local n, life = #KEYS, nil
if forgiven then n = n / 2 end
local answers = n > 1 and {}
for i = 1, n do
  local key = KEYS[i]
  ` + read + `
  local rest, reset, why = limit - counted, start + window - now, 0
  if attempts - tries < rest then rest = attempts - tries end
  if most - open - own < rest then rest = most - open - own end
  if rest <= 0 then
    if open + own >= most then why = ` + whyOpen + ` elseif tries >= attempts then why = ` + whyAttempts + ` else why = ` + whyLimit + ` end
  end
  if forgiven then
    local f = call('GET', KEYS[n + i])
    if f and #f == 20 then
      local since, ends = parts('>I7I7', f)
      if ends > now and since >= parts('>I7', forgiven, i * 7 - 6) then why, reset = ` + whyPenalty + `, ends - now end
    end
  end
  if why > 0 then start, rest = 0, 0
  elseif ask == 0 then
    local all = pack('>I7I4I4I4I4', start, counted + 1, tries + 1, node, own + 1) .. others
    rest = rest - 1
    if lasting then call('SET', key, all, 'KEEPTTL')
    elseif reset <= ` + keepOpen + ` * 1000 then
      life = life or string.format('%.0f', now / 1000 + ` + keepOpen + `)
      call('SET', key, all, 'PXAT', life) -- the engine would rewrite a PX
    else call('SET', key, all, 'PX', math.ceil(reset / 1000)) end
  end
  local answer = pack('>I1I4I7I7', why, rest, start, reset)
  if n == 1 then return answer end
  answers[i] = answer
end
return table.concat(answers)
`

// The reasons of take.
const (
	whyPenalty  = "1"
	whyOpen     = "2"
	whyAttempts = "3"
	whyLimit    = "4"
)

// give takes off ARGV[4] open connections of this node, or sets their number if
// ARGV[3] is "set". KEYS[1] is the client, and ARGV[1] and ARGV[2] begin as
// those of take. Each three arguments that follow are the begin of a window,
// and what to take off if it has not ended: those that count, and attempts.
const give = `
local call, pack, parts, living, key = redis.call, struct.pack, struct.unpack, ARGV[2], KEYS[1]
local node, known, window = parts('>I4I4I7', ARGV[1])
` + clock + read + `
local n = tonumber(ARGV[4])
if ARGV[3] == 'set' then own, lasting = n, false else own = math.max(0, own - n) end
for i = 5, #ARGV, 3 do
  if tonumber(ARGV[i]) == start then
    counted = math.max(0, counted - ARGV[i + 1])
    tries = math.max(0, tries - ARGV[i + 2])
  end
end
` + save + `
return 0
`

// fail counts a failure. KEYS[1] are the failures of the client: the begin of
// those that count and the end of the latest penalty in µs, 7 bytes each; the
// number of failures, 4 bytes; and that of penalties in a row, 2 bytes. ARGV
// has the Penalty in µs: Failures, Within, Block, MaxBlock; how long to keep it
// in ms; and failures that began before ARGV[6] do not count.
const fail = `
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local need, within, length, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local since, ends, failures, blocks = 0, 0, 0, 0
local v = redis.call('GET', KEYS[1])
if v and #v == 20 then
  since, ends, failures, blocks = struct.unpack('>I7I7I4I2', v)
  since, ends = math.min(since, now), math.min(ends, now + most)
  if since < tonumber(ARGV[6]) then failures, blocks = 0, 0 end
end
if blocks > 0 then
  if now < ends then return {1, ends - now} end
  if now - ends >= most then failures, blocks = 0, 0 end
end
if failures == 0 or now - since >= within then since, failures = now, 0 end
failures = failures + 1
local left = 0
if failures >= need then
  left = math.min(most, length * 2 ^ math.min(blocks, 40))
  ends, failures, blocks = now + left, 0, math.min(blocks, 65534) + 1
end
redis.call('SET', KEYS[1], struct.pack('>I7I7I4I2', since, ends, failures, blocks), 'PX', ARGV[5])
return {left > 0 and 2 or 0, left}
`

// begin is the beginning of the scripts on what all nodes know. KEYS[1] is the
// head: a hash of the id of the data, the highest number of a node, and the
// version. The other keys are those of keys.
const begin = `
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local function text(n) return string.format('%.0f', n) end
`

// meet renews the lease of this node, and returns what has changed. ARGV is the
// id of the data if the engine has none, the number of this node or 0, the
// lease in µs, 1 to renew it, and the id and the version that this node knows.
// A version is a time, so that no failover gives one a second time.
const meet = begin + `
local head = redis.call('HMGET', KEYS[1], 'id', 'ids', 'v')
local id, ids, version = head[1], tonumber(head[2] or '0'), head[3] or '0'
if not id then
  id = ARGV[1]
  redis.call('HSET', KEYS[1], 'id', id)
end
local number = ARGV[2]
local ends = redis.call('ZSCORE', KEYS[2], number)
if not ends or tonumber(ends) <= now then
  -- Never a number of before, also if the engine has lost its data.
  ids = math.max(ids + 1, math.floor(now / 1000000))
  redis.call('HSET', KEYS[1], 'ids', text(ids))
  number, ends = text(ids), nil
end
if not ends or ARGV[4] == '1' then redis.call('ZADD', KEYS[2], text(now + tonumber(ARGV[3])), number) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now))
local gone = redis.call('ZRANGE', KEYS[5], '-inf', text(now), 'BYSCORE', 'LIMIT', 0, 100)
if #gone > 0 then
  redis.call('ZREM', KEYS[5], unpack(gone))
  redis.call('ZREM', KEYS[4], unpack(gone))
  redis.call('HDEL', KEYS[3], unpack(gone))
end
local from, whole = ARGV[6], '0'
if id ~= ARGV[5] or version ~= from and from ~= '0' and redis.call('ZCOUNT', KEYS[4], from, from) == 0 then
  from, whole = '0', '1'
end
local changes = {}
if version ~= from then
  local list = redis.call('ZRANGE', KEYS[4], '(' .. from, '+inf', 'BYSCORE', 'LIMIT', 0, 500, 'WITHSCORES')
  if #list == 1000 then version = list[1000] end
  for i = 1, #list, 2 do
    changes[i] = list[i]
    changes[i + 1] = redis.call('HGET', KEYS[3], list[i]) or ''
  end
end
return {id, number, text(now), text(ids), version, whole, redis.call('ZRANGE', KEYS[2], 0, -1), changes}
`

// put stores a record unless the engine has a newer one, and returns that. ARGV
// is the name of the record, the record, when it may be forgotten in µs, or 0
// for never, the number of records up to which it is stored, or 0, and 1 if the
// change is made now, and not before.
const put = begin + `
local record = ARGV[2]
if ARGV[5] == '1' then record = string.format('%016.0f', now) .. string.sub(record, 17) end
local have = redis.call('HGET', KEYS[3], ARGV[1])
if have and string.sub(have, 1, 16) >= string.sub(record, 1, 16) then return have end
local most = tonumber(ARGV[4])
if not have and most > 0 and redis.call('ZCARD', KEYS[4]) >= most then return '' end
local version = math.max(tonumber(redis.call('HGET', KEYS[1], 'v') or '0') + 1, now)
redis.call('HSET', KEYS[1], 'v', text(version))
redis.call('HSET', KEYS[3], ARGV[1], record)
redis.call('ZADD', KEYS[4], text(version), ARGV[1])
if ARGV[3] == '0' then redis.call('ZREM', KEYS[5], ARGV[1])
else redis.call('ZADD', KEYS[5], ARGV[3], ARGV[1]) end
return record
`

// Without the first line, a script that runs out of memory stops half done.
// With it, the engine refuses the script before its first write. What makes
// room, renews a lease or blocks a network is allowed without memory.
var (
	takeScript = newScript("#!lua\n" + take)
	giveScript = newScript("#!lua flags=allow-oom\n" + give)
	failScript = newScript("#!lua\n" + fail)
	meetScript = newScript("#!lua flags=allow-oom\n" + meet)
	putScript  = newScript("#!lua flags=allow-oom\n" + put)
)

// script is a script that the engine keeps by its hash. In contrast to
// rueidis.Lua, it also makes the command for a pipeline.
type script struct{ text, hash string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:])}
}

func (s *script) command(c rueidis.Client, keys, args []string) rueidis.Completed {
	return c.B().Evalsha().Sha1(s.hash).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

func (s *script) whole(c rueidis.Client, keys, args []string) rueidis.Completed {
	return c.B().Eval().Script(s.text).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

// exec runs the script, and gives its text to an engine that does not know it.
func (s *script) exec(ctx context.Context, c rueidis.Client, keys []string, args ...string) rueidis.RedisResult {
	r := c.Do(ctx, s.command(c, keys, args))
	if unknown(r.Error()) {
		r = c.Do(ctx, s.whole(c, keys, args))
	}
	return r
}

func unknown(err error) bool {
	answer, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(answer.Error(), "NOSCRIPT")
}

// call is one run of a script, or a DEL of its first key if there is none.
type call struct {
	*script
	keys, args []string
}

// pipeline runs calls together, and returns the error of each.
func pipeline(ctx context.Context, c rueidis.Client, calls []call) []error {
	commands := make([]rueidis.Completed, len(calls))
	for i, one := range calls {
		if one.script == nil {
			commands[i] = c.B().Del().Key(one.keys[0]).Build()
		} else {
			commands[i] = one.command(c, one.keys, one.args)
		}
	}
	errs := make([]error, len(calls))
	var again []int
	for i, r := range c.DoMulti(ctx, commands...) {
		if errs[i] = r.Error(); unknown(errs[i]) {
			again = append(again, i)
		}
	}
	for _, i := range again {
		errs[i] = calls[i].exec(ctx, c, calls[i].keys, calls[i].args...).Error()
	}
	return errs
}
