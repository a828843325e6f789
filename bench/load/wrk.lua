-- Requests in turn from a file that LOAD_BODIES names, one body a line; every connection starts elsewhere.
local bodies = {}
for line in io.lines(os.getenv("LOAD_BODIES")) do bodies[#bodies + 1] = line end
local path = os.getenv("LOAD_PATH")
local at = 0

function init(args) math.randomseed(os.time()); at = math.random(#bodies) end

function request()
  at = at % #bodies + 1
  return wrk.format("POST", path, { ["Content-Type"] = "application/json" }, bodies[at])
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "max": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.connect, e.read, e.write, e.timeout, e.status))
end
