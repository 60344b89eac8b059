-- Before each of the other scripts. Times are the server's, in seconds; doubles are exact to less
-- than a microsecond with this beginning (2025-01-01), and so are the texts that they are kept as.
local EPOCH = 1735689600
local TOLERANCE = 0.001
local MAX_FULL = 2
-- So long it is known that a step was taken: a client whose connection broke asks for it again at
-- once, and cannot know whether it was.
local KNOWN_MS = 10000
local time = redis.call('TIME')
local now = tonumber(time[1]) - EPOCH + tonumber(time[2]) / 1000000

local function text(number)
  return string.format('%.17g', number)
end

local function set_level(key, level)
  if level > 0 then
    redis.call('SET', key, text(now + level), 'PX', math.ceil(level * 1000) + 1000)
  else
    redis.call('DEL', key)
  end
end

-- Of a bucket that runs empty by itself: how long until it is.
local function level_of(key, full)
  local level = tonumber(redis.call('GET', key) or 0) - now
  if level > MAX_FULL * full then  -- the clock was set back: from now on it runs empty
    level = MAX_FULL * full
    set_level(key, level)
  end
  return math.max(level, 0)
end

-- Take a place, or keep it for as long again.
local function hold_place(key, place, lease_s)
  redis.call('ZADD', key, text(now + lease_s), place)
  redis.call('PEXPIRE', key, math.ceil(lease_s * 1000) + 1000)
end
