-- One body, sent again and again; the last line of the output is JSON.
local file = io.open(os.getenv("WRK_BODY"), "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["Content-Type"] = os.getenv("WRK_TYPE")
wrk.headers["Accept"] = os.getenv("WRK_ACCEPT")

function done(summary, latency, requests)
  local e = summary.errors
  local lost = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format('{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "errors": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, lost))
end
