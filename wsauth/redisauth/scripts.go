package redisauth

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// begin is the beginning of each script that writes events. KEYS[1] is the
// head, KEYS[2] are the events, and ARGV[1] is the id of the data if the engine
// has none.
const begin = `
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local function text(n) return string.format('%.0f', n) end
local id = redis.call('HGET', KEYS[1], 'id')
if not id then
  id = ARGV[1]
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'id', id, 'seq', '0')
end
local function tell(kind, name, value)
  local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', 1000, text(seq) .. '-0', 'k', kind, 'n', name, 'v', value)
end
`

// renew renews the lease of node ARGV[2], of ARGV[3] ms, and forgets nodes that
// have died.
const renew = begin + `
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', text(now))
local lapsed = redis.call('ZSCORE', KEYS[3], ARGV[2]) and '' or 'lapsed'
redis.call('ZADD', KEYS[3], text(now + tonumber(ARGV[3]) * 1000), ARGV[2])
redis.call('PEXPIRE', KEYS[4], 2 * tonumber(ARGV[3]))
return {id, redis.call('HGET', KEYS[1], 'seq') or '0', text(now), lapsed, text(redis.call('ZCARD', KEYS[3]))}
`

// put replaces a record of KEYS[3] if it is still the expected one.
const put = begin + `
local have = redis.call('HGET', KEYS[3], ARGV[2]) or ''
if have ~= ARGV[3] then return {'HAVE', have} end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
tell('revoked', ARGV[2], ARGV[4])
return {'OK', ''}
`

// join adds a session to those of its device, KEYS[4], and those of its node,
// KEYS[5]. Sessions of the device that have left, or whose node has died, make
// room first.
const join = begin + `
local node, lease, field, most, replace, info = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7]
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', text(now))
local lapsed = ''
if not redis.call('ZSCORE', KEYS[3], node) then
  lapsed = 'lapsed'
  redis.call('ZADD', KEYS[3], text(now + lease * 1000), node)
end
local replaced = {}
if most > 0 then
  for i = 8, #ARGV do redis.call('HDEL', KEYS[4], ARGV[i]) end
  local open, all = {}, redis.call('HGETALL', KEYS[4])
  for i = 1, #all, 2 do
    local at, since = string.match(all[i+1], '^(%w+) (%d+)$')
    if not at or not redis.call('ZSCORE', KEYS[3], at) then redis.call('HDEL', KEYS[4], all[i])
    elseif all[i] ~= field then open[#open+1] = {all[i], tonumber(since)} end
  end
  if #open >= most then
    if replace == '' then return {'FULL', lapsed, text(now)} end
    table.sort(open, function(a, b)
      if a[2] ~= b[2] then return a[2] < b[2] end
      return a[1] < b[1]
    end)
    for i = 1, #open - most + 1 do
      redis.call('HDEL', KEYS[4], open[i][1])
      redis.call('HSET', KEYS[6], open[i][1], 'replaced ' .. text(now))
      tell('ended', open[i][1], 'replaced')
      replaced[#replaced+1] = open[i][1]
    end
  end
  redis.call('HSET', KEYS[4], field, node .. ' ' .. text(now))
  redis.call('PEXPIRE', KEYS[4], 86400000)
end
redis.call('HSET', KEYS[5], field, info)
redis.call('PEXPIRE', KEYS[5], 2 * lease)
return {'OK', lapsed, text(now), unpack(replaced)}
`

// finish makes the node that has a session end it. KEYS[3] are the ends.
const finish = begin + `
redis.call('HSET', KEYS[3], ARGV[2], 'operator ' .. text(now))
tell('ended', ARGV[2], 'operator')
return {'OK'}
`

// living returns the nodes that have a lease.
const living = `
local t = redis.call('TIME')
return redis.call('ZRANGE', KEYS[1], '(' .. string.format('%.0f', tonumber(t[1]) * 1000000 + tonumber(t[2])), '+inf', 'BYSCORE')
`

// keepExpired is how long a family is kept after the end of its validity, in
// ms, so that its token is called expired and not unknown.
const keepExpired = "2592000000"

// create adds family ARGV[1], KEYS[1], to the families, KEYS[2].
const create = `
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local function text(n) return string.format('%.0f', n) end
local most = tonumber(ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now - ` + keepExpired + `))
if redis.call('ZCARD', KEYS[2]) >= most then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now))
  if redis.call('ZCARD', KEYS[2]) >= most then return 'FULL' end
end
redis.call('HSET', KEYS[1], 'g', ARGV[2], 'v', ARGV[3])
redis.call('PEXPIREAT', KEYS[1], text(tonumber(ARGV[4]) + ` + keepExpired + `))
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
return 'OK'
`

// rotate replaces a family of generation ARGV[5].
const rotate = `
if redis.call('HGET', KEYS[1], 'g') ~= ARGV[5] then return 'NO' end
redis.call('HSET', KEYS[1], 'g', ARGV[2], 'v', ARGV[3])
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', tonumber(ARGV[4]) + ` + keepExpired + `))
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
return 'OK'
`

// load returns a family, and an empty text if there is none.
const load = `return redis.call('HGET', KEYS[1], 'v') or ''`

// remove removes family ARGV[2], and returns it as load does.
const remove = begin + `
local v = redis.call('HGET', KEYS[3], 'v')
redis.call('ZREM', KEYS[4], ARGV[2])
if not v then return '' end
redis.call('DEL', KEYS[3])
tell('removed', ARGV[2], '')
return v
`

// Without the first line, a script that runs out of memory stops half done.
// With it, the engine refuses the script before its first write. What ends a
// permission, or replaces a value, is allowed without memory.
var (
	renewScript  = newScript("#!lua flags=allow-oom\n" + renew)
	putScript    = newScript("#!lua flags=allow-oom\n" + put)
	joinScript   = newScript("#!lua\n" + join)
	finishScript = newScript("#!lua flags=allow-oom\n" + finish)
	livingScript = newScript("#!lua flags=no-writes\n" + living)
	createScript = newScript("#!lua\n" + create)
	rotateScript = newScript("#!lua flags=allow-oom\n" + rotate)
	loadScript   = newScript("#!lua flags=no-writes\n" + load)
	removeScript = newScript("#!lua flags=allow-oom\n" + remove)
)

// script is a script that the engine keeps by its hash. In contrast to
// rueidis.Lua, it runs on a dedicated connection too.
type script struct{ text, hash string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:])}
}

func (s *script) exec(ctx context.Context, c rueidis.CoreClient, keys []string, args ...string) rueidis.RedisResult {
	n := int64(len(keys))
	r := c.Do(ctx, c.B().Evalsha().Sha1(s.hash).Numkeys(n).Key(keys...).Arg(args...).Build())
	if err, ok := answerIn(r.Error()); ok && strings.HasPrefix(err.Error(), "NOSCRIPT") {
		r = c.Do(ctx, c.B().Eval().Script(s.text).Numkeys(n).Key(keys...).Arg(args...).Build())
	}
	return r
}

// The waits between two tries of a call.
const (
	firstWait = 10 * time.Millisecond
	longWait  = 200 * time.Millisecond
)

// ask runs a script. If no answer comes, or the engine is not ready, it asks
// again until ctx ends, so the script may run several times.
func (a *Authority) ask(ctx context.Context, s *script, keys []string, args ...string) (r rueidis.RedisResult, err error) {
	_, err = a.again(ctx, func() error {
		r = s.exec(ctx, a.cfg.Client, keys, args...)
		return r.Error()
	})
	return r, err
}

// again calls try until it succeeds, the engine refuses it, or ctx ends. unsure
// says that an earlier call may have had an effect.
func (a *Authority) again(ctx context.Context, try func() error) (unsure bool, err error) {
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		err := try()
		if err == nil {
			return unsure, nil
		}
		answer, answered := answerIn(err)
		if answered && !passing(answer) {
			return unsure, failed(err)
		}
		unsure = unsure || !answered
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return unsure, failed(err)
		}
	}
}

// atOnce is the number of commands that travel together.
const atOnce = 1000

// pipeline runs commands, each batch of them within Timeout.
func (a *Authority) pipeline(ctx context.Context, c rueidis.CoreClient, commands []rueidis.Completed) error {
	for len(commands) > 0 {
		n := min(len(commands), atOnce)
		one, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
		replies := c.DoMulti(one, commands[:n]...)
		cancel()
		for _, r := range replies {
			if err := r.Error(); err != nil {
				return err
			}
		}
		commands = commands[n:]
	}
	return nil
}
