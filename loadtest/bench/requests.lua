-- Sends requests of one kind, all made beforehand: `wrk … -- KIND FIRST LAST`. Kinds: post, post-key, get,
-- get-cold, list, list-deep.
-- A key is new with each request, so those of post-key are made when they are sent, and those of
-- get-cold, none of which may come twice in a slice.
-- FIRST to LAST are the user ids to post for or to list, or the order ids to get.
local made, turn, fresh = {}, 0, nil

local function order(id, key)
  local body = string.format(
    '{"userId": %d, "productId": 1, "quantity": 2, "total": 19.90, "paymentMethod": "card"}', id)
  local fields = { ["Content-Type"] = "application/json", ["Idempotency-Key"] = key }
  return wrk.format("POST", "/api/orders", fields, body)
end

local make = {
  post = order,
  get = function(id) return wrk.format("GET", "/api/orders/" .. id) end,
  list = function(id) return wrk.format("GET", "/api/orders/user/" .. id) end,
  ["list-deep"] = function(id) return wrk.format("GET", "/api/orders/user/" .. id .. "?page=500") end,
}

function init(args)
  local first, last = tonumber(args[2]), tonumber(args[3])
  if args[1] == "post-key" then
    math.randomseed(os.time())
    local run = string.format("%d-%d", os.time(), math.random(1, 1000000000))
    fresh = function()
      turn = turn + 1
      return order(math.random(first, last), run .. "-" .. turn)
    end
    return
  end
  if args[1] == "get-cold" then
    math.randomseed(os.time())
    local start = math.random(0, last - first)
    fresh = function()
      turn = turn + 1
      return make.get(first + (start + turn) % (last - first + 1))
    end
    return
  end
  math.randomseed(1)
  for place = 1, 4096 do
    made[place] = make[args[1]](math.random(first, last))
  end
end

function request()
  if fresh then return fresh() end
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
