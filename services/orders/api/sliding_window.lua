-- Counts a request if it is within the limit. Returns {allowed, previous, current, left_ms}.
-- A refused request is not counted. Requests that were admitted before and not yet counted
-- (`unreported`) always are; a negative number gives back what another policy refused.
-- A clock set back starts a new window rather than a long wait.
local limit, window, amount = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local unreported = tonumber(ARGV[4] or 0)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local started, previous, current = now, 0, 0
local state = redis.call('GET', KEYS[1])
if state then
  local s, p, c = string.match(state, '^(%d+) (%d+) (%d+)$')
  s, p, c = tonumber(s), tonumber(p), tonumber(c)
  if s and now >= s and now < s + window then
    started, previous, current = s, p, c
  elseif s and now >= s and now < s + 2 * window then
    started, previous = s + window, c
  end
end
local left = started + window - now
local weighted = previous * left
weighted = (weighted - weighted % window) / window
local allowed = 0
current = math.max(0, current + unreported)
if weighted + current + amount <= limit and amount > 0 then
  allowed, current = 1, current + amount
end
if allowed > 0 or unreported ~= 0 then
  redis.call('SET', KEYS[1], started .. ' ' .. previous .. ' ' .. current, 'PX', left + window)
end
return {allowed, previous, current, left}
