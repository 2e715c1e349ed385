-- Asks Portcullis whether a request may pass, for haproxy.cfg beside this file. Whatever goes wrong, nobody passes.

-- What the portal is told, in place of whatever a client has sent under these names; and the cookies and the Authorization
-- without the gateway's own.
local told = {
    "remote-user", "remote-email", "remote-name", "remote-groups", "x-portcullis-jwt-assertion", "cookie", "authorization",
}
-- What holds between the client and HAProxy, and the body that stays here. Not `upgrade`: the protocol that the portal is
-- offered is the gateway's to allow.
local of_this_hop = {
    "host", "connection", "content-length", "transfer-encoding", "te", "trailer", "expect", "keep-alive",
    "proxy-connection",
}

local function answer(txn, status, headers, body)
    local reply = txn:reply({ status = status, body = body })
    for name, values in pairs(headers) do
        if name ~= "content-length" and name ~= "transfer-encoding" and name ~= "connection" then
            for _, value in pairs(values) do
                reply:add_header(name, value)
            end
        end
    end
    txn:done(reply)
end

core.register_action("portcullis", { "http-req" }, function(txn, url)
    -- All that the client has sent, line by line.
    local headers = {}
    for name, values in pairs(txn.http:req_get_headers()) do
        local lines = {}
        for _, value in pairs(values) do
            lines[#lines + 1] = value
        end
        headers[name] = lines
    end
    for _, name in ipairs(of_this_hop) do
        headers[name] = nil
    end
    headers["x-forwarded-method"] = { txn.f:method() }
    headers["x-forwarded-uri"] = { txn.f:pathq() }

    local asked = core.httpclient()
    local said = asked:get({ url = url, headers = headers, timeout = 10000 })
    if not said or not said.status or said.status == 0 then
        return answer(txn, 503, {}, "")
    end
    if said.status ~= 200 then
        return answer(txn, said.status, said.headers or {}, said.body or "")
    end
    for _, name in ipairs(told) do
        txn.http:req_del_header(name)
        local values = said.headers[name]
        if not values then
            return answer(txn, 503, {}, "")
        end
        for _, value in pairs(values) do
            if value ~= "" then
                txn.http:req_add_header(name, value)
            end
        end
    end
end, 1)
