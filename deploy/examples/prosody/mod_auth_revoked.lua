-- Logs users in by their OAuth token (SASL OAUTHBEARER, RFC 7628), which it introspects (RFC 7662) at the nodes of
-- revoked. For Prosody 0.12. If a node is down, hangs or returns 503, the module tries the next one. If no node
-- responds, the login fails with temporary-auth-failure. The module keeps no state between logins.

local async = require "util.async";
local base64 = require "util.encodings".base64;
local create_context = require "core.certmanager".create_context;
local http = require "net.http";
local json = require "util.json";
local nodeprep = require "util.encodings".stringprep.nodeprep;
local promise = require "util.promise";
local sasl = require "util.sasl";
local timer = require "util.timer";
local urlencode = require "util.http".urlencode;

local nodes = module:get_option_array("revoked_nodes");
local timeout = module:get_option_number("revoked_timeout", 2); -- seconds for each node
local username_claim = module:get_option_string("revoked_username", "sub");
local credentials = "Basic "..base64.encode(urlencode(module:get_option_string("revoked_client_id"))
	..":"..urlencode(module:get_option_string("revoked_client_secret")));

local tls = assert(create_context("revoked", "client",
	{ mode = "client", verify = "peer", cafile = module:get_option_string("revoked_cafile") }));
local client = http.new({ sslctx = tls });

-- Introspects a token at one node. Returns the response of RFC 7662, or nil if the node gives none.
local function ask(node, token)
	local decided = promise.new(function (resolve)
		timer.add_task(timeout, function () resolve(nil); end);
		client:request(node.."/oauth2/introspect", {
			body = "token="..urlencode(token);
			headers = { Authorization = credentials };
			suppress_url = true;
		}, function (body, code)
			if code ~= 200 then
				module:log("warn", "node %s: %s", node, code == 0 and body or code);
			end
			resolve(code == 200 and json.decode(body) or nil);
		end);
	end);
	local answer = async.wait_for(decided);
	return type(answer) == "table" and type(answer.active) == "boolean" and answer or nil;
end

local next_node = 0;

-- Returns the response of the first node that gives one, or nil. Each login begins at another node, in turn.
local function introspect(token)
	next_node = next_node % #nodes + 1;
	for i = 0, #nodes - 1 do
		local node = nodes[(next_node - 1 + i) % #nodes + 1];
		local answer = ask(node, token);
		if answer then return answer; end
		module:log("warn", "no decision from node %s", node);
	end
end

-- Parses the initial response of RFC 7628 section 3.1: "n,a=user@host,", then key=value fields between \1.
local function oauthbearer(self, message)
	local header, fields = (message or ""):match("^(n,[^\1]*,)(\1.*\1\1)$");
	local token = fields and fields:match("\1auth=[Bb][Ee][Aa][Rr][Ee][Rr] +([%w%-._~+/]+=*)\1");
	if not token then
		return "failure", "malformed-request";
	end
	local answer = introspect(token);
	if not answer then
		return "failure", "temporary-auth-failure", "The token could not be checked.";
	end
	local claim = answer.active and answer[username_claim];
	local username = type(claim) == "string" and nodeprep(claim);
	if not username or username == "" then
		return "failure", "not-authorized", "The token is not active.";
	end
	local authzid = header:match("^n,a=([^,]*),$");
	if authzid and authzid ~= username and authzid ~= username.."@"..self.realm then
		return "failure", "invalid-authzid";
	end
	self.username = username;
	return "success";
end

sasl.registerMechanism("OAUTHBEARER", { "oauthbearer" }, oauthbearer);

local provider = {};

function provider.test_password() return nil, "Passwords are not supported."; end
function provider.set_password() return nil, "Passwords are not supported."; end
function provider.create_user() return nil, "The authorization server creates users."; end
function provider.delete_user() return nil, "The authorization server deletes users."; end
function provider.user_exists() return true; end
function provider.users() return function () end; end

function provider.get_sasl_handler()
	return sasl.new(module.host, { oauthbearer = true });
end

module:provides("auth", provider);
