// Decides a subrequest of auth_request: 204 for an active token with the scopes of $revoked_scope, 401, 403,
// or 500 if the token could not be checked. It keeps no state between requests.

async function check(r) {
    const header = r.headersIn.Authorization || '';
    const token = header.match(/^bearer +([A-Za-z0-9\-._~+\/]+=*)$/i); // RFC 6750 section 2.1
    if (!token) {
        r.headersOut['WWW-Authenticate'] = 'Bearer';
        r.return(401);
        return;
    }
    const reply = await ngx.fetch('http://127.0.0.1:8482/oauth2/introspect', {
        method: 'POST',
        headers: {
            'Authorization': r.variables.revoked_credentials,
            'Content-Type': 'application/x-www-form-urlencoded',
        },
        body: 'token=' + encodeURIComponent(token[1]),
    });
    if (reply.status !== 200) {
        r.error('introspection answered ' + reply.status);
        r.return(500);
        return;
    }
    const answer = await reply.json(); // an exception is a 500 too
    if (answer.active !== true) {
        r.headersOut['WWW-Authenticate'] = 'Bearer error="invalid_token"';
        r.return(401);
        return;
    }
    const granted = (answer.scope || '').split(' ');
    const demanded = (r.variables.revoked_scope || '').split(' ').filter((s) => s);
    if (!demanded.every((s) => granted.includes(s))) {
        r.headersOut['WWW-Authenticate'] = 'Bearer error="insufficient_scope"';
        r.return(403);
        return;
    }
    r.headersOut['Revoked-Subject'] = answer.sub || '';
    r.return(204);
}

export default { check };
