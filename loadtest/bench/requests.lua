-- Sends requests of one kind, all made beforehand: `wrk … -- post|get|list FIRST LAST`.
-- FIRST to LAST are the user ids to post for or to list, or the order ids to get.
local made, turn = {}, 0

local make = {
  post = function(id)
    local body = string.format(
      '{"userId": %d, "productId": 1, "quantity": 2, "total": 19.90, "paymentMethod": "card"}', id)
    return wrk.format("POST", "/api/orders", { ["Content-Type"] = "application/json" }, body)
  end,
  get = function(id) return wrk.format("GET", "/api/orders/" .. id) end,
  list = function(id) return wrk.format("GET", "/api/orders/user/" .. id) end,
}

function init(args)
  local first, last = tonumber(args[2]), tonumber(args[3])
  math.randomseed(1)
  for place = 1, 4096 do
    made[place] = make[args[1]](math.random(first, last))
  end
end

function request()
  turn = turn % #made + 1
  return made[turn]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"micros":%d,"p50":%d,"p99":%d,"broken":%d,"refused":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
