-- Prosody introspects the token of every login at revoked. Copy mod_auth_revoked.lua to a directory of plugin_paths,
-- and this file to /etc/prosody/conf.d, at mode 0640: it contains a client secret.
-- A system test runs this file with other names, ports and directories.

plugin_paths = { "/etc/prosody/modules" }
c2s_require_encryption = true -- a login carries a bearer token

VirtualHost "example.org"
	authentication = "revoked"
	revoked_nodes = { "https://node1.example.org:8443", "https://node2.example.org:8443", "https://node3.example.org:8443" }
	revoked_cafile = "/etc/revoked/ca.pem"
	revoked_client_id = "CLIENT_ID"
	revoked_client_secret = "CLIENT_SECRET"
	revoked_timeout = 2 -- seconds for each node
	revoked_username = "sub" -- or "username": the claim that names the account
