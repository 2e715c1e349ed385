-- For wrk: prints one line of figures at the end. Nothing here runs for each request.

function done(summary, latency, requests)
  local failed = summary.errors
  io.write(string.format("figures %d %d %d %d %d\n",
    summary.requests, summary.duration, latency:percentile(99), summary.bytes,
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
