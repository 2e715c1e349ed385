"""Verifies assertions as a portal in Python does, with PyJWT.

Arguments: the URL of the keys, where to find that host, the certificate to trust, issuer, audience. Each line of
standard input is a token, each line of standard output what came of it.
"""

import json
import ssl
import sys

import jwt

url, address, certificate, issuer, audience = sys.argv[1:]
host = url.split("/")[2]
# The gateway of a test has a port of its own, which is no part of its name.
trust = ssl.create_default_context(cafile=certificate)
trust.check_hostname = False
keys = jwt.PyJWKClient(
    url.replace(host, address), headers={"Host": host}, ssl_context=trust, timeout=5
)

for line in sys.stdin:
    token = line.strip()
    try:
        key = keys.get_signing_key_from_jwt(token).key
        claims = jwt.decode(
            token,
            key,
            algorithms=["ES256"],
            issuer=issuer,
            audience=audience,
            leeway=30,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
        print(json.dumps({"claims": claims}), flush=True)
    except jwt.PyJWTError as error:
        print(json.dumps({"refused": type(error).__name__}), flush=True)
