-- Bodies, sent in turn, again and again; the last line of the output is JSON.
local bodies = {}
for path in string.gmatch(os.getenv("WRK_BODY"), "[^\n]+") do
  local file = io.open(path, "rb")
  bodies[#bodies + 1] = file:read("*a")
  file:close()
end
wrk.method = "POST"
wrk.body = bodies[1]
wrk.headers["Content-Type"] = os.getenv("WRK_TYPE")
wrk.headers["Accept"] = os.getenv("WRK_ACCEPT")

-- Without a function `request` wrk sends what it has written once.
if #bodies > 1 then
  local requests, turn = {}, 0
  function init(args)
    for index, body in ipairs(bodies) do
      requests[index] = wrk.format(nil, nil, nil, body)
    end
  end
  function request()
    turn = turn % #requests + 1
    return requests[turn]
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  local lost = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format('{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "errors": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, lost))
end
