"""A small OpenID provider, run by the Python of stac-auth-proxy, which has what signs tokens: discovery, keys, client credentials.

    python issuer.py PORT

Clients are named after what their tokens are good for; all have the secret `s3cret`.
GET /asked says how often a token was fetched.
"""

import base64
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SECRET, KID, AUDIENCE = "s3cret", "key-1", "stac-api"
CLIENTS = {  # scope, audience, seconds that its tokens are good
    "writer": ("openid stac:write", AUDIENCE, 300),
    "brief": ("openid stac:write", AUDIENCE, 5),
    "reader": ("openid stac:read", AUDIENCE, 300),
    "stranger": ("openid stac:write", "another-api", 300),
}
ASKED = dict.fromkeys(CLIENTS, 0)


class Issuer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def root(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def do_GET(self):
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
        found = {
            "/.well-known/openid-configuration": {
                "issuer": self.root, "jwks_uri": f"{self.root}/jwks", "token_endpoint": f"{self.root}/token",
                "authorization_endpoint": f"{self.root}/authorize", "response_types_supported": ["code"],
                "grant_types_supported": ["client_credentials"], "scopes_supported": ["openid", "stac:write"],
                "id_token_signing_alg_values_supported": ["RS256"], "subject_types_supported": ["public"],
            },
            "/jwks": {"keys": [{**public, "kid": KID, "use": "sig", "alg": "RS256"}]},
            "/asked": ASKED,
        }  # fmt: skip
        self.answer(200 if self.path in found else 404, found.get(self.path, {}))

    def do_POST(self):
        form = {k: v[0] for k, v in parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).items()}
        client, secret = form.get("client_id", ""), form.get("client_secret", "")
        if basic := self.headers.get("Authorization"):
            client, _, secret = base64.b64decode(basic.removeprefix("Basic ")).decode().partition(":")
        if self.path != "/token" or form.get("grant_type") != "client_credentials" or client not in CLIENTS or secret != SECRET:
            return self.answer(401, {"error": "invalid_client"})
        ASKED[client] += 1
        scope, audience, lasts = CLIENTS[client]
        now = int(time.time())
        claims = {"iss": self.root, "sub": client, "azp": client, "aud": audience, "scope": scope, "iat": now, "exp": now + lasts}
        token = jwt.encode(claims, KEY, algorithm="RS256", headers={"kid": KID})
        return self.answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": lasts})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Issuer).serve_forever()
