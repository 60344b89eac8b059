-- KEYS: whether it was done; one a rule.
-- ARGV: place; of each rule: 'time' or 'place', full, what its level rises by.
if not redis.call('SET', KEYS[1], 1, 'NX', 'PX', KNOWN_MS) then
  return 1
end
for i, key in ipairs({unpack(KEYS, 2)}) do
  local at = 1 + (i - 1) * 3
  if ARGV[at + 1] == 'place' then
    redis.call('ZREM', key, ARGV[1])
  else
    local full, rise = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local level = level_of(key, full) + rise
    set_level(key, math.min(math.max(level, 0), MAX_FULL * full))
  end
end
return 1
