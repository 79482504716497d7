-- wrk's side of the HTTP benchmarks: one request after the other on each connection.
-- Arguments after "--": KIND TOKEN ACCOUNTS PAUSE_MS. KIND is transfers, messages, empty or
-- replayed; each connection pauses between its requests, PAUSE_MS on the average.
-- Every change carries an Idempotency-Key of its own, as a careful client's does.

function init(args)
  local kind, token, accounts = args[1], args[2], tonumber(args[3])
  local path = kind == "messages" and "/messages" or "/bank/transfers"
  local get = kind == "empty"
  local pause_ms = tonumber(args[4])
  if pause_ms > 0 then
    delay = function() return math.random(0, 2 * pause_ms) end
  end
  math.randomseed(os.time() * 1000 + tonumber(tostring({}):sub(8, 14), 16) % 1000003)
  local run = string.format("%08x", math.random(0, 0x7fffffff))
  head = get and "GET /healthz HTTP/1.1\r\nHost: bank\r\n" or
    "POST " .. path .. " HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\n"
  if token ~= "" then head = head .. "Authorization: Bearer " .. token .. "\r\n" end
  get_request = head .. "\r\n"
  head = head .. "Idempotency-Key: " .. run .. "-"
  if get then
    request = function() return get_request end
  elseif kind == "messages" then
    request = function()
      local key = string.format("%08x%08x", math.random(0, 0x7fffffff), math.random(0, 0x7fffffff))
      local body = '{"text":"' .. key .. ' says hello to the loggers"}'
      return head .. key .. "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
    end
  else
    request = function()
      local key = string.format("%08x%08x", math.random(0, 0x7fffffff), math.random(0, 0x7fffffff))
      local source = math.random(accounts)
      local target = source % accounts + 1
      if accounts > 2 then
        target = math.random(accounts - 1)
        if target >= source then target = target + 1 end
      end
      local body = '{"source":' .. source .. ',"target":' .. target .. ',"amount":1}'
      return head .. key .. "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
    end
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"refused":%d,"broken":%d,' ..
    '"p50_us":%d,"p90_us":%d,"p99_us":%d,"p999_us":%d,"max_us":%d}\n',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency:percentile(99.9), latency.max))
end
