"""What lets a source into its catalog: where each secret stands, never the secret itself.

`auth: {bearer: {env: STAC_TOKEN}}`, `{header: {name: X-API-Key, file: /etc/stac/key}}`, `{basic: {user: me, env: STAC_PASSWORD}}`,
or `{oidc: {token_url: https://…/token, client_id: me, env: STAC_SECRET}}`. `header` may stand beside one of the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from stac_watch.config.values import Group, HttpUrl
from stac_watch.model.errors import ConfigError
from stac_watch.model.files import fault


class Secret(Group):
    """Where a secret stands: a file or a variable of the environment."""

    file: Path | None = None
    """File that holds it, as a mounted Secret does; read for each request, so that it may be replaced."""
    env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Variable of the environment that holds it; read at the start, and not handed on to runs."""
    value: SecretStr | None = None
    """The secret; only from `env`, or as STAC_WATCH__SOURCES__NAME__AUTH__BEARER__VALUE; refused in the YAML."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.file is not None and (self.env is not None or self.value is not None):
            raise ValueError("the secret is in a `file` or in a variable `env`, not in both")
        if self.file is None and self.env is None and self.value is None:
            raise ValueError("say where the secret is: `file: PATH` or `env: VARIABLE`")
        return self

    def read(self) -> str:
        """Returns the secret as it is now.

        Raises:
            ConfigError: there is none, or it is more than a line.
        """
        text, place = "", f"the file {self.file}" if self.file else f"the variable {self.env}"
        if self.file is not None:
            try:
                text = self.file.read_text(encoding="utf-8").strip("\r\n")
            except (OSError, ValueError) as error:
                raise ConfigError(f"auth: cannot read {self.file}: {fault(error)}", hint="is the Secret mounted there?") from None
        elif self.value is not None:
            text = self.value.get_secret_value()
        if not text or not text.isprintable():
            what = "holds more than a line" if text else "is empty" if self.file else "is not set"
            raise ConfigError(f"auth: {place} {what}", hint="it holds the secret and nothing else")
        return text


class HeaderSecret(Secret):
    """A header of the request, as API keys are given."""

    name: str = Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    """Name of the header."""


class BasicSecret(Secret):
    """A name and a password (HTTP Basic)."""

    user: str = Field(min_length=1, pattern=r"^[^:]+$")
    """The name; the secret is the password."""


class OidcSecret(Secret):
    """A token by OAuth 2 client credentials, as OpenID providers (Keycloak, Auth0, Entra) give it; fetched before it ends."""

    token_url: HttpUrl
    """The provider's token endpoint."""
    client_id: str = Field(min_length=1)
    """Name of the client; the secret is the client's."""
    scope: str = ""
    """What is asked for; empty = what the provider gives."""
    audience: str = ""
    """Whom the token is for, where the provider wants to know (Auth0)."""


class Auth(Group):
    """What lets a source into its catalog; sent to the catalog's own origin and nowhere else."""

    bearer: Secret | None = None
    """A token, as `Authorization: Bearer …`."""
    header: HeaderSecret | None = None
    """Any header; may stand beside one of the others."""
    basic: BasicSecret | None = None
    """A name and a password; without any `auth` a ~/.netrc is read."""
    oidc: OidcSecret | None = None
    """A token of an OpenID provider."""

    @model_validator(mode="after")
    def _one_authorization(self) -> Self:
        given = [name for name in ("bearer", "basic", "oidc") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are each an `Authorization`: give one of them")
        if not given and self.header is None:
            raise ValueError("give one of bearer, header, basic, oidc")
        return self

    def kind(self) -> str:
        """Returns the ways that are used, as the configuration has them."""
        return " and auth.".join(name for name in ("bearer", "basic", "oidc", "header") if getattr(self, name) is not None)

    def secrets(self) -> list[Secret]:
        """Returns all that is secret."""
        return [s for s in (self.bearer, self.header, self.basic, self.oidc) if s is not None]
