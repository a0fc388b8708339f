"""What lets a client of the tests' issuer in, made as the program makes it."""

from collections.abc import Callable
from datetime import UTC, datetime

from auth_servers import Guarded

from stac_watch.catalog.credentials import ClientCredentials, Credentials
from stac_watch.config.auth import OidcSecret


def credentials(
    place: Guarded,
    client: str,
    *,
    secret: str = "s3cret",
    token_url: str = "",
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Credentials:
    """OIDC client credentials of a client."""
    given = OidcSecret(token_url=token_url or place.token_url, client_id=client, value=secret)
    return Credentials("oidc", {"Authorization": ClientCredentials(given.token_url, client, given.read, now=now, agent="test")})
