-- Introspects the bearer token of a request (RFC 7662) and passes the response to gateway.cfg:
-- txn.revoked_status: 200 with the JSON in txn.revoked_body; 401 without a token; anything else: not checked.
-- HAProxy 2.6 has no JSON in Lua, so gateway.cfg reads the response with json_query.

local endpoint = "http://127.0.0.1:8480/oauth2/introspect"
local credentials = "Basic " .. (os.getenv("REVOKED_GATEWAY") or error("REVOKED_GATEWAY is not set"))

local function introspect(txn)
    txn:set_var("txn.revoked_status", 0)
    txn:set_var("txn.revoked_body", "")
    local header = txn.http:req_get_headers()["authorization"]
    -- The tokens of RFC 6750 section 2.1, from exactly one header.
    local token = header and not header[1] and
        header[0]:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +([%w%-._~+/]+=*)$")
    if not token then
        txn:set_var("txn.revoked_status", 401)
        return
    end
    local encoded = token:gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end)
    local answer = core.httpclient():post{
        url = endpoint,
        headers = {
            ["content-type"] = { "application/x-www-form-urlencoded" },
            ["authorization"] = { credentials },
        },
        body = "token=" .. encoded,
        timeout = 10000, -- milliseconds, longer than the 8 s of local.cfg
    }
    txn:set_var("txn.revoked_status", answer.status)
    txn:set_var("txn.revoked_body", answer.body or "")
end

core.register_action("revoked_introspect", { "http-req" }, introspect)
