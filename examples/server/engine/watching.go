package engine

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// watchingFor is how long the number of a server counts that tells no other: it
// may have crashed.
const watchingFor = 15 * time.Second

// watchingScript notes the numbers of one server, and returns the sums of all.
// They are in one hash, since the nodes of a cluster share the keys. A field is
// the server's id, and then the room if it has a name.
var watchingScript = rueidis.NewLuaScript(`
local key, id, live = KEYS[1], ARGV[1], tonumber(ARGV[2])
local now = tonumber(redis.call('TIME')[1])
for i = 3, #ARGV, 2 do
  local field = id
  if ARGV[i] ~= '' then field = id .. ' ' .. ARGV[i] end
  if ARGV[i+1] == '0' then redis.call('HDEL', key, field)
  else redis.call('HSET', key, field, ARGV[i+1] .. ' ' .. now) end
end
redis.call('PEXPIRE', key, live * 1000)
local sums, all = {}, redis.call('HGETALL', key)
for i = 1, #all, 2 do
  local n, at = string.match(all[i+1], '^(%d+) (%d+)$')
  if n and now - at < live then
    local room = string.match(all[i], ' (.+)$') or ''
    sums[room] = (sums[room] or 0) + n
  else redis.call('HDEL', key, all[i]) end
end
local told = {}
for i = 3, #ARGV, 2 do told[#told+1] = sums[ARGV[i]] or 0 end
return told
`)

// Watching tells the other servers how many viewers each room has on this one,
// and returns how many each has on all. rooms and here have the same length. The
// numbers count for 15 seconds. The room "" is the only conversation.
func (e *Engine) Watching(ctx context.Context, rooms []string, here []int) (all []int64, err error) {
	client, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	args := []string{e.id, strconv.Itoa(int(watchingFor / time.Second))}
	for i, room := range rooms {
		args = append(args, room, strconv.Itoa(here[i]))
	}
	return watchingScript.Exec(ctx, client, []string{e.cfg.Prefix + ":watching"}, args).AsIntSlice()
}
