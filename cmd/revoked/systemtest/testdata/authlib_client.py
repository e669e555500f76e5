"""Introspects and revokes with Authlib, as its documentation shows: client id, secret and way of
authentication from the environment (the CA by REQUESTS_CA_BUNDLE); on standard input one call a line: what to
do, the URL, the token, perhaps a hint. One answer a line."""
import json
import os
import sys

from authlib.integrations.requests_client import OAuth2Session

session = OAuth2Session(
    os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"],
    token_endpoint_auth_method=os.environ["AUTH_METHOD"],
    revocation_endpoint_auth_method=os.environ["AUTH_METHOD"],
)
for line in sys.stdin:
    word, url, token, hint = (line.split() + [None])[:4]
    call = {"revoke": session.revoke_token, "introspect": session.introspect_token}[word]
    response = call(url, token=token, token_type_hint=hint)
    print(response.status_code, json.dumps(response.json(), sort_keys=True), flush=True)
