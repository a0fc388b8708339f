"""What lets a source in: it goes to the catalog and nowhere else, is made anew when it ends, and is never shown."""

import base64
import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler

import pytest
from loopback import serving

from stac_watch.app import build_catalog, jitter
from stac_watch.catalog.client import Catalog
from stac_watch.catalog.credentials import ClientCredentials
from stac_watch.config.load import load
from stac_watch.model.errors import CatalogUnavailable, ConfigError, Refused

ROOT = {"type": "Catalog", "links": [{"rel": "search", "href": "./search"}]}


class Door:
    """A catalog that lets in who has the right header, and the provider of its tokens."""

    def __init__(self) -> None:
        self.wants: tuple[str, str] = ("authorization", "")
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.tokens, self.lasts, self.provider = 0, 3600, 200
        self.only_header = False

    def handler(self, *given):
        door = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                headers = {k.lower(): v for k, v in self.headers.items()}
                door.seen.append(("GET", self.path, headers))
                name, value = door.wants
                right = headers.get(name) == (value or f"Bearer token-{door.tokens}")
                said = {"message": f"not {headers.get(name)}"}
                self.reply(200 if right else 401, ROOT if right else said)

            def do_POST(self):
                form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                door.seen.append(("POST", self.path, {"form": form} | {k.lower(): v for k, v in self.headers.items()}))
                if door.provider != 200 or (door.only_header and "Authorization" not in self.headers):
                    self.reply(401, {"error": "invalid_client", "error_description": "who is s3cret-value?"})
                    return
                door.tokens += 1
                self.reply(200, {"access_token": f"token-{door.tokens}", "expires_in": door.lasts})

            def reply(self, status, document):
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler(*given)


@pytest.fixture
def door():
    return Door()


def catalog(tmp_path, url: str, auth: str, environ: dict[str, str], more: str = "") -> Catalog:
    path = tmp_path / "stac-watch.yaml"
    path.write_text(f"sources: [{{name: s2, api: '{url}', collection: c, auth: {auth}{more}}}]")
    return build_catalog(load(path, environ).sources[0], jitter())


SCOPE = {"scope": "read"}
WAYS = {
    "bearer": ("{bearer: {env: T}}", ("authorization", "Bearer s3cret-value")),
    "header": ("{header: {name: X-API-Key, env: T}}", ("x-api-key", "s3cret-value")),
    "basic": ("{basic: {user: me, env: T}}", ("authorization", "Basic " + base64.b64encode(b"me:s3cret-value").decode())),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_lets_a_source_in(tmp_path, door, way):
    auth, door.wants = WAYS[way]
    with serving(door.handler) as url:
        assert catalog(tmp_path, url, auth, {"T": "s3cret-value"}).places.landing() == ROOT
        door.wants = ("authorization", "Bearer other")
        with pytest.raises(Refused, match="HTTP 401") as error:
            catalog(tmp_path, url, auth, {"T": "s3cret-value"}).places.landing()
    assert "s3cret-value" not in error.value.message
    assert f"auth.{way}" in error.value.hint
    assert door.seen[0][2]["user-agent"].startswith("stac-watch/")


def test_a_file_is_read_again_when_it_was_replaced(tmp_path, door):
    token = tmp_path / "token"
    token.write_text("old-token\n")
    door.wants = ("authorization", "Bearer new-token")
    with serving(door.handler) as url:
        source = catalog(tmp_path, url, f"{{bearer: {{file: '{token}'}}}}", {})
        with pytest.raises(Refused):
            source.places.landing()
        token.write_text("new-token\n")
        assert source.places.landing() == ROOT
        token.unlink()
        with pytest.raises(ConfigError, match="cannot read"):
            source.clock()


@pytest.mark.parametrize("only_header", [False, True])
def test_a_token_of_a_provider_is_fetched_before_it_ends_and_after_it_was_refused(door, only_header):
    now, door.only_header = [datetime(2026, 1, 1, tzinfo=UTC)], only_header
    with serving(door.handler) as url:
        token = ClientCredentials(
            f"{url}/token", "me", lambda: "s3cret-value", now=lambda: now[0], agent="t", extra={"scope": "read"}
        )
        assert [token(), token()] == ["Bearer token-1"] * 2
        now[0] += timedelta(seconds=door.lasts * 0.9)
        assert token() == "Bearer token-2"
        token.forget()
        assert token() == "Bearer token-3"
        assert "grant_type=client_credentials" in door.seen[-1][2]["form"]
        assert "scope=read" in door.seen[-1][2]["form"]
        door.provider = 401
        token.forget()
        with pytest.raises(Refused, match=r"invalid_client|who is \*\*\*") as error:
            token()
    assert "s3cret-value" not in str(error.value)
    with pytest.raises(CatalogUnavailable, match="cannot be reached"):
        token()


def test_a_token_that_is_refused_is_fetched_anew_by_itself(tmp_path, door):
    with serving(door.handler) as url:
        auth = f"{{oidc: {{token_url: '{url}/token', client_id: me, env: T}}}}"
        source = catalog(tmp_path, url, auth, {"T": "s3cret-value"})
        assert source.places.landing() == ROOT
        door.tokens = 7  # the provider has forgotten the first
        assert source._http.ask(f"{url}/").document == ROOT
    assert [path for method, path, _ in door.seen if method == "POST"] == ["/token", "/token"]


def test_credentials_do_not_follow_a_redirect(tmp_path):
    went = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            went.append(self.headers.get("Authorization"))
            self.send_error(500)

        def log_message(self, *_):
            pass

    with serving(Elsewhere) as other:

        class Away(Elsewhere):
            def do_GET(self):
                self.send_response(307)
                self.send_header("Location", f"{other}{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()

        with serving(Away) as url, pytest.raises(ConfigError, match="redirects"):
            catalog(tmp_path, url, "{bearer: {env: T}}", {"T": "s3cret-value"}).clock()
    assert went == []


def test_another_name_is_told_to_the_operator(tmp_path, door):
    door.wants = ("user-agent", "mine/1 (me@example.org)")
    with serving(door.handler) as url:
        assert catalog(tmp_path, url, "null", {}, ", user_agent: mine/1 (me@example.org)").places.landing() == ROOT


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ("{bearer: s3cret-value}", "auth.bearer stands in the file"),
        ("{bearer: {value: s3cret-value}}", "auth.bearer stands in the file"),
        ("s3cret-value", "auth.bearer stands in the file"),
        ("{bearer: {}}", "say where the secret is"),
        ("{bearer: {env: A, file: b}}", "not in both"),
        ("{bearer: {env: A}, basic: {user: u, env: B}}", "bearer and basic"),
        ("{basic: {env: A}}", "auth.basic.user"),
        ("{}", "give one of"),
    ],
)
def test_what_cannot_be_used_is_said_without_the_secret(tmp_path, auth, said):
    with pytest.raises(ConfigError, match=said) as error:
        catalog(tmp_path, "http://127.0.0.1:1", auth, {})
    assert "s3cret-value" not in error.value.message + error.value.hint


def test_a_secret_is_in_no_text_of_the_configuration_and_missing_only_where_it_is_used(tmp_path):
    path = tmp_path / "stac-watch.yaml"
    path.write_text("sources: [{name: s2, api: 'http://127.0.0.1:1', collection: c, auth: {bearer: {env: T}}}]")
    assert "s3cret" not in repr(load(path, {"T": "s3cret-value"})) + load(path, {"T": "s3cret-value"}).model_dump_json()
    given = load(path, {"STAC_WATCH__SOURCES__S2__AUTH__BEARER__VALUE": "123"})
    assert given.sources[0].auth.bearer.read() == "123"
    source = build_catalog(load(path, {}).sources[0], jitter())
    with pytest.raises(ConfigError, match="variable T is not set"):
        source.clock()
