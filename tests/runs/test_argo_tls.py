"""The EventSource with TLS, and while its token is changed."""

import ipaddress
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from engine_contract import event_of
from fakes.eventsource import TOKEN, Handler

from stac_watch.model.errors import Refused
from stac_watch.runs.engine import Answer


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1, its key and the authority that signed it, in one file.

    The authority says nothing about key usage, like many that were made by hand: OpenSSL's strict mode, which Python 3.13 made its
    default, refuses those.
    """
    ours, theirs = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    authority = _signed(theirs, theirs, "company", x509.BasicConstraints(ca=True, path_length=None))
    leaf = _signed(ours, theirs, "stac-eventsource-svc", address)
    path = tmp_path_factory.mktemp("tls") / "all.pem"
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    parts = [ours.private_bytes(*form), *(each.public_bytes(serialization.Encoding.PEM) for each in (leaf, authority))]
    path.write_bytes(b"".join(parts))
    return path


def _signed(key, by, name, extension):
    subject, issuer = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in (name, "company"))
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(issuer).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(extension, critical=False)
        .sign(by, hashes.SHA256())
    )  # fmt: skip


@pytest.fixture
def secured(source, certificate):
    """The EventSource's webhook, over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"source": source})) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}/items"
        server.shutdown()
        thread.join()


def test_a_certificate_of_the_installations_own_is_checked_with_its_file(argo, secured, certificate, source):
    assert argo(webhook=secured, ca_file=certificate).submit(event_of()).answer is Answer.ACCEPTED
    assert len(source.posts) == 1
    stranger = argo(webhook=secured).submit(event_of())
    assert stranger.answer is Answer.UNKNOWN
    assert "certificate" in stranger.detail.lower()
    assert len(source.posts) == 1, "nothing was said to whom nobody knows"


@pytest.mark.parametrize("tokens", [("old", TOKEN), (TOKEN, "new")])
def test_while_the_token_is_changed_either_is_taken(argo, source, tokens):
    """The EventSource reads its Secret when the kubelet brings it; the poller knew both before."""
    engine = argo(token=tokens[0], more=tokens[1:])
    assert engine.ping().endswith("takes the token")
    source.posts.clear()
    for _ in range(2):
        assert engine.submit(event_of()).answer is Answer.ACCEPTED
    assert [headers["Authorization"] for headers, _ in source.posts] == [f"Bearer {TOKEN}"] * 2, (
        "the one that was taken comes first"
    )


def test_two_wrong_tokens_are_as_one(argo, source):
    engine = argo(token="old", more=("older",))
    with pytest.raises(Refused, match="refuses the token") as error:
        engine.submit(event_of())
    assert len(source.posts) == 2
    assert "old" not in str(error.value).replace("token_file", "")
