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

// watchingScript notes the number of one server, and returns the sum of all.
var watchingScript = rueidis.NewLuaScript(`
local now = tonumber(redis.call('TIME')[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. now)
redis.call('PEXPIRE', KEYS[1], ARGV[3] * 1000)
local sum, all = 0, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local n, at = string.match(all[i+1], '^(%d+) (%d+)$')
  if n and now - at < tonumber(ARGV[3]) then sum = sum + n
  else redis.call('HDEL', KEYS[1], all[i]) end
end
return sum
`)

// Watching tells the other servers how many viewers a room has on this one, and
// returns how many it has on all. The number counts for 15 seconds. If room is
// empty, it is the only conversation.
func (e *Engine) Watching(ctx context.Context, room string, here int) (int, error) {
	client, err := e.connect(ctx)
	if err != nil {
		return 0, err
	}
	key := e.cfg.Prefix + ":watching"
	if room != "" {
		key += ":" + room
	}
	all, err := watchingScript.Exec(ctx, client, []string{key},
		[]string{e.id, strconv.Itoa(here), strconv.Itoa(int(watchingFor / time.Second))}).AsInt64()
	return int(all), err
}
