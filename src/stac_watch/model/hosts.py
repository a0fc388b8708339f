"""Where stac-watch and its runner may connect to: hrefs and addresses against an allow-list. Pure."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from urllib.parse import urlsplit

from stac_watch.model.errors import IdentityError

MAX_HREF = 2048  # it stands in the event twice
NOT_OF_A_URL = re.compile(r"[^!-~]|[{}<>\"'`\\|^$]")  # not visible ASCII; quotes, braces and others that no URL needs
HOST = re.compile(r"[A-Za-z0-9._-]*|[0-9A-Fa-f:.]+")  # what parsers of URLs agree on; no zone, no escape
METADATA_SERVICES = frozenset({"100.100.100.200", "168.63.129.16", "fd00:ec2::254"})
"""Where clouds hand out a machine's credentials outside 169.254.0.0/16 and fe80::/10: Alibaba, Azure, AWS."""
INSIDE = (".svc", ".cluster.local", ".internal", ".local", ".localhost")  # names that the public DNS does not have
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
type Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_href(value: str, allowed_hosts: tuple[str, ...] = ()) -> str:
    """Returns `value` when it is a plain http(s), s3 or (with no host list) file URL or path to an allowed host.

    Raises:
        IdentityError: another scheme, credentials in the URL, template braces, white space, or a host that is not allowed.
    """
    if len(value) > MAX_HREF:
        raise IdentityError(f"href {value[:60]!r}... is too long: {len(value)} characters", hint=f"{MAX_HREF} are allowed")
    if NOT_OF_A_URL.search(value):
        raise IdentityError(f"href {value[:120]!r} holds characters that a URL must not have")
    try:
        parts = urlsplit(value)
    except ValueError as error:  # a bracket that opens an IPv6 address and does not close it
        raise IdentityError(f"href {value[:120]!r} is not a URL: {error}") from None
    if parts.username or parts.password:
        raise IdentityError(
            f"href of host {parts.hostname!r} carries credentials", hint="credentials come from the environment only"
        )
    _check_target(value, parts.scheme, parts.hostname or "", allowed_hosts)
    return value


def _check_target(href: str, scheme: str, host: str, allowed_hosts: tuple[str, ...]) -> None:
    shown = repr(href[:120])
    if not HOST.fullmatch(host):
        raise IdentityError(f"host {host[:80]!r} of an href is not a host's name")
    if scheme not in ("http", "https", "s3") and (allowed_hosts or scheme not in ("file", "")):
        also = "" if allowed_hosts else ", file"
        raise IdentityError(f"href {shown} has scheme {scheme!r}", hint=f"allowed are http, https, s3{also}")
    if allowed_hosts and not _host_allowed(host, allowed_hosts):
        raise IdentityError(
            f"host {host!r} of href {shown} is not allowed", hint="add it to the source's allowed_hosts if it is right"
        )
    if (literal := _address(host)) is not None and _forbidden(literal):
        raise IdentityError(f"host {host!r} of href {shown} is an address that nobody may be sent to")


def check_address(host: str, address: str, allowed_hosts: tuple[str, ...]) -> None:
    """Allows a connection to `host` at `address`, or raises. `address` is what is really connected to, not what DNS said before.

    Link-local, multicast and metadata addresses are refused always. Private ones (loopback too) are refused unless an entry of
    `allowed_hosts` says so: a network that holds the address (`10.0.0.0/8`), the address itself, or a name that only exists
    inside (`localhost`, `catalog.demo.svc`). A public name that suddenly leads to a private address is an attack, or a mistake.

    Raises:
        IdentityError: it may not.
    """
    host, found = host.strip("[]").lower(), _address(address)
    if found is None or _forbidden(found):
        raise IdentityError(f"host {host!r} leads to {address}, which nobody may be sent to")
    public = found.is_global and not (isinstance(found, ipaddress.IPv6Address) and found.is_site_local)
    if public or _in_networks(found, allowed_hosts) or (is_inside(host) and _host_allowed(host, allowed_hosts)):
        return
    raise IdentityError(
        f"host {host!r} leads to {address}, a private address",
        hint=f"if that is right, add its network to allowed_hosts, for example {found}/{found.max_prefixlen}",
    )


def serves(name: str, hosts: tuple[str, ...]) -> bool:
    """Tells whether a page of ours may be asked for under a name: one that nobody outside can have, or one of `hosts`."""
    return is_inside(name.lower()) or _host_allowed(name, hosts)


def narrowed(own: tuple[str, ...], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the hosts that one run may ask: its source's own, each of which must be among those that are allowed to all.

    Raises:
        IdentityError: one is not.
    """
    for host in own if allowed else ():
        within = host in allowed or (_within(host, allowed) if "/" in host else _host_allowed(host.removeprefix("*"), allowed))
        if not within:
            hint = "an event names hosts of its source; the deployment's are in the configuration it was rendered from"
            raise IdentityError(f"host {host[:80]!r} is not one of those that runs may ask", hint=hint)
    return own or allowed


def _within(network: str, allowed: tuple[str, ...]) -> bool:
    try:
        inner = ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
    outer = (ipaddress.ip_network(entry, strict=False) for entry in allowed if "/" in entry)
    return any(o.version == inner.version and o.supernet_of(inner) for o in outer)  # type: ignore[arg-type]  # of one version


def is_inside(host: str) -> bool:
    """Tells whether a host is visibly not public: an address, or a name that the public DNS does not have."""
    return _address(host) is not None or "." not in host or host.endswith(INSIDE)


def _host_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    literal = _address(host)
    if literal is not None and _in_networks(literal, allowed):
        return True
    return any(host.lower() == a or (a.startswith("*.") and host.endswith(a[1:])) for a in (h.lower() for h in allowed))


def _in_networks(address: Address, allowed: tuple[str, ...]) -> bool:
    return any(address in ipaddress.ip_network(entry, strict=False) for entry in allowed if "/" in entry)


@lru_cache(1024)  # many items name few hosts, and finding out that a name is no address costs an exception
def _address(text: str) -> Address | None:
    """Returns the address that a text holds, unwrapping IPv4 in IPv6 (mapped, NAT64, 6to4); None if it is no address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(address.packed[-4:])
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _forbidden(address: Address) -> bool:
    special = address.is_link_local or address.is_multicast or address.is_unspecified or str(address) in METADATA_SERVICES
    return special or (address.is_reserved and not address.is_loopback)  # ::1 is reserved, too
