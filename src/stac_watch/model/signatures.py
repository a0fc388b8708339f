"""Signatures and tokens in the query of a URL: no part of what it names, and nobody's to read. Pure.

A gateway, or a catalog in front of private storage, signs an href anew in every answer. The product is the same each time, and
whoever sees the signature may read it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import pairwise

_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-obs-", "x-ms-", "q-sign", "q-ak", "q-key-time", "q-header-list", "q-url-param")
"""AWS and what speaks like it (Signature 4), Google, Alibaba, Huawei, Azure, Tencent."""
_SAYS = re.compile(
    "token|jwt|sig|signe?d?|signature|hmac|auth|authorization|credentials?|expires?|expiry|expiration|exp|secret|password|passwd|pwd"
    "|policy|session|sid|ticket|sas|hdn(ea|ts|tl)|gda|apikey|(access|security)token|subscriptionkey|keypairid"
    "|(aws|oss|google)?access(key)?id"
)
_BEFORE_KEY = frozenset({"access", "api", "pair", "subscription", "session", "account"})  # `key` alone may name an object
_BESIDE = re.compile(
    "s[vsrptei]|s(rt|pr|ip|es|dd|kt|ke|ks|kv)|sk[ot]id|s(ao|uo|c|kt)id|rsc[cdelt]"  # Azure's shared access signature
    "|md5|hash|h|e|ts|timestamp|nonce|date|time|alg|algorithm|ip|user|kid"  # what nginx, CDNs and gateways sign along
)
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_PARAMETER = re.compile(r"(?<=[?&;])([^=&;#?\s\"'<>]{1,64})=([^&;#\s\"'<>)\]},]*)")
_QUERY = re.compile(r"\?[^#\s\"'<>]*")


def unsigned(href: str) -> str:
    """Returns the URL without the parameters of its query that sign it; one that is not signed as it is, byte for byte."""
    head, mark, rest = href.partition("?")
    if not mark:
        return href
    query, hash_, fragment = rest.partition("#")
    pairs = query.split("&")
    names = [pair.partition("=")[0] for pair in pairs]
    signing = _signing(names)
    if not signing:
        return href
    kept = [pair for pair, name in zip(pairs, names, strict=True) if name not in signing]
    return head + ("?" + "&".join(kept) if kept else "") + hash_ + fragment


def masked(text: str) -> str:
    """Returns text for people: the values of what signs a URL in it are `***`."""
    if "?" not in text or "=" not in text:
        return text
    return _QUERY.sub(lambda query: _masked(query[0]), text)


def _masked(query: str) -> str:
    signing = _signing([found[1] for found in _PARAMETER.finditer(query)])
    return _PARAMETER.sub(lambda p: f"{p[1]}=***" if p[1] in signing else p[0], query) if signing else query


def _signing(names: Collection[str]) -> set[str]:
    """Returns which parameters of one query sign it; short names such as `se` do so only beside one that says it."""
    plain = {name: name.strip().lower().removeprefix("amp;") for name in names}
    signing = {name for name, low in plain.items() if _signs(name, low)}
    return signing | {name for name, low in plain.items() if _BESIDE.fullmatch(low)} if signing else signing


def _signs(name: str, low: str) -> bool:
    if low.startswith(_PREFIXES):
        return True
    words = [word.lower() for word in _WORD.findall(name)]
    return (
        any(_SAYS.fullmatch(word) for word in ("".join(words), *words))
        or any(word == "key" and before in _BEFORE_KEY for before, word in pairwise(words))
    )  # fmt: skip
