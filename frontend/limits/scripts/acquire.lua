-- KEYS: the answer to who asks again; one a rule.
-- ARGV: place, lease_s, num_requests; of each rule: 'time' or 'place', full, step, cost.
-- Returns 1 or 0 (admitted or not), then every rule's level before.
local known = redis.call('GET', KEYS[1])
if known then
  return cjson.decode(known)
end
local rules = {unpack(KEYS, 2)}
local place, lease_s, num_requests = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

-- Places of dead workers are free; none is held for longer than a lease, though the clock was set
-- back.
local function num_places(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now))
  local latest = text(now + lease_s)
  for _, late in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. latest, '+inf')) do
    redis.call('ZADD', key, latest, late)
  end
  return redis.call('ZCARD', key)
end

local levels, after, answer, admitted = {}, {}, {}, 1
for i, key in ipairs(rules) do
  local at = 3 + (i - 1) * 4
  local full, step, cost = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  if ARGV[at + 1] == 'place' then
    levels[i] = num_places(key)
  else
    levels[i] = level_of(key, full)
  end
  after[i] = levels[i] + cost * step
  if cost > 0 and after[i] - full > step * TOLERANCE then
    admitted = 0
  end
  answer[i + 1] = text(levels[i])
end
answer[1] = admitted
if admitted == 1 and num_requests > 0 then
  redis.call('SET', KEYS[1], cjson.encode(answer), 'PX', KNOWN_MS)
  for i, key in ipairs(rules) do
    if ARGV[3 + (i - 1) * 4 + 1] == 'place' then
      hold_place(key, place, lease_s)
    else
      set_level(key, after[i])
    end
  end
end
return answer
