"""Introspects and revokes with Authlib by a key or a certificate. The sample of docs/api.md is the
module sample. METHOD is one of its functions, or "default" and "endpoint" for Authlib without it.
Standard input has one call per line: what to do, the URL, the token. Each answer is one line."""
import json
import os
import sys

from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT

import sample

client_id, cert, key, method = (os.environ[name] for name in ("CLIENT_ID", "CERT", "KEY", "METHOD"))
with open(key) as f:
    pem = f.read()
if method == "by_certificate":
    session = sample.by_certificate(client_id, cert, key)
else:
    session = sample.by_key(client_id, pem, os.environ["ISSUER"])
    if method != "by_key":
        issuer = os.environ["ISSUER"] if method == "default" else None  # None: Authlib takes the endpoint
        session.register_client_auth_method(PrivateKeyJWT(issuer, alg="ES256"))
for line in sys.stdin:
    word, url, token = line.split()
    call = {"revoke": session.revoke_token, "introspect": session.introspect_token}[word]
    response = call(url, token=token)
    print(response.status_code, json.dumps(response.json(), sort_keys=True), flush=True)
