-- For wrk: sends the session cookie, if there is one, and prints one line of figures at the end.
-- Nothing here runs for each request, so the load costs what it costs without a script.

local path = os.getenv("BENCH_COOKIE_FILE")
if path then
  local file = assert(io.open(path))
  wrk.headers["Cookie"] = file:read("*l")
  file:close()
end

function done(summary, latency, requests)
  local failed = summary.errors
  io.write(string.format("figures %d %d %d %d %d\n",
    summary.requests, summary.duration, latency:percentile(99), summary.bytes,
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
