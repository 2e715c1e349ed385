-- For wrk: prints one line of figures at the end. Nothing here runs for each request, unless there are two arguments: the
-- name of a cookie and a file, each line of which begins with a value, for one request after the other.

function init(args)
  local name, file = args[1], args[2]
  if not file then return end
  local requests, turn = {}, 0
  for line in io.lines(file) do
    local value = line:match("^%S+")
    requests[#requests + 1] = wrk.format(nil, nil, { Host = wrk.headers["Host"], Cookie = name .. "=" .. value })
  end
  function request()
    turn = turn % #requests + 1
    return requests[turn]
  end
end

function done(summary, latency, requests)
  local failed = summary.errors
  io.write(string.format("figures %d %d %d %d %d\n",
    summary.requests, summary.duration, latency:percentile(99), summary.bytes,
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
