"""What single values of the configuration look like: durations, rates, URLs, hosts, templates. Pure."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from stac_watch.model.errors import IdentityError
from stac_watch.model.identity import check_collection, tile_name

MAX_DURATION = 36_500 * 86_400  # beyond it, "now less this" leaves the calendar
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Group(BaseModel):
    """Base of every part of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)


def parse_duration(value: object) -> timedelta:
    """Returns a time span from `90s`, `15m`, `6h`, `30d`."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", str(value).strip())
    if not match:
        raise ValueError(f"{value!r} is not a duration; write a number and one of s, m, h, d, for example 60s, 15m or 30d")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > MAX_DURATION:
        raise ValueError(f"{value!r} is more than 100 years")
    return timedelta(seconds=seconds)


def parse_rate(value: object) -> float:
    """Returns events per second from `2/s`, `90/m`, `1000/h`."""
    if isinstance(value, float) and value > 0:  # read already
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*/\s*([smhd])", str(value).strip())
    if not match or float(match[1]) <= 0:
        raise ValueError(f"{value!r} is not a rate; write for example 2/s or 90/m")
    return float(match[1]) / _UNITS[match[2]]


def parse_size(value: object) -> int:
    """Returns bytes from `6Gi`, `1800M`, `2000000000`: the quantities of Kubernetes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|k|M|G|T|Ki|Mi|Gi|Ti)B?", str(value).strip())
    if not match or float(match[1]) <= 0:
        raise ValueError(f"{value!r} is not a size; write for example 6Gi or 1800M")
    base, power = (1024, "KMGT") if match[2].endswith("i") else (1000, "kMGT")
    return int(float(match[1]) * base ** (power.index(match[2][0]) + 1 if match[2] else 0))


def _off(value: object) -> object:
    """Reads `off` as YAML 1.1 and Helm write it: false."""
    return "off" if value is False else value


def _agent(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise ValueError(f"{value!r} cannot be a header: write plain ASCII in one line")
    return value


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s{}@]+", value):
        raise ValueError(f"{value!r} is not an http(s) URL (credentials never go into the URL)")
    require_place(value)
    return value.rstrip("/")


def require_place(url: str) -> None:
    """Raises ValueError unless host and port of a URL can be read."""
    try:
        parts = urlsplit(url)
        found = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is not an http(s) URL: {error}") from None
    if not found[0]:
        raise ValueError(f"{url!r} names no host")


def _host(value: str) -> str:
    if "/" in value:
        try:
            return str(ip_network(value))
        except ValueError as error:
            raise ValueError(f"{value!r} is neither a host nor a network: {error}") from None
    if not re.fullmatch(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:.]+", value):
        raise ValueError(
            f"{value!r} is not a host; write objects.example.org, *.example.org or 10.0.0.0/8, without scheme and port"
        )
    return value


def _bbox(value: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    west, south, east, north = value
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise ValueError(
            f"{list(value)} is not west, south, east, north in degrees: longitudes within 180, latitudes within 90, south below"
            " north; west > east crosses the antimeridian"
        )
    return value


def _same_host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(:\d{1,5})?", value):
        raise ValueError(f"{value!r} is not a host; write objects.example.org, or with its port, without scheme and path")
    return value


def _collection(value: str) -> str:
    try:
        return check_collection(value)
    except IdentityError as error:
        raise ValueError(f"{error.message}; {error.hint}") from None


CollectionId = Annotated[str, AfterValidator(_collection)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
Rate = Annotated[float, BeforeValidator(parse_rate)]
Off = Annotated[Literal["off"], BeforeValidator(_off)]
Agent = Annotated[str, AfterValidator(_agent)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Host = Annotated[str, AfterValidator(_host)]
Bbox = Annotated[tuple[float, float, float, float], AfterValidator(_bbox)]
Tile = Annotated[str, AfterValidator(tile_name)]
SameHost = Annotated[str, AfterValidator(_same_host)]
