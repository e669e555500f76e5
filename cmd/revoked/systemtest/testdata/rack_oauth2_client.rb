# Revokes with rack-oauth2: CA, client id and secret from the environment; on standard input one call a
# line: the way of authentication, the URL, the kind of token, the token. One answer a line.
require "rack/oauth2"

Rack::OAuth2.http_config do |http|
  http.ssl_config.add_trust_ca(ENV.fetch("CA"))
end
STDIN.each_line do |line|
  way, url, kind, token = line.split
  uri = URI(url)
  client = Rack::OAuth2::Client.new(
    identifier: ENV.fetch("CLIENT_ID"), secret: ENV.fetch("CLIENT_SECRET"),
    scheme: uri.scheme, host: uri.host, port: uri.port, revocation_endpoint: uri.path
  )
  begin
    puts client.revoke!(way.to_sym, kind.to_sym => token)
  rescue Rack::OAuth2::Client::Error => e
    puts "#{e.status} #{e.response[:error]}"
  end
  STDOUT.flush
end
