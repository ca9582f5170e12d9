"""Who may ask the server: its own page, and programs that are no web page.

A browser sends the pages of every website to 127.0.0.1 as gladly as ours. What tells them apart are headers that a page
cannot choose: `Host` (the name under which the server was asked; another name than ours is a rebound one), `Origin`,
and `Sec-Fetch-Site`. Programs send no `Origin` and are let in.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
FORMS = ("/upload", "/login")
"""Routes of gradio that take a form; everything else that changes something takes JSON."""
_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"(\[[0-9a-f:.%]+\]|[^\[\]:@/?#\\\s]+)(?::(\d{1,5}))?", re.IGNORECASE)
_JSON = re.compile(r"application/(?:[\w.-]+\+)?json", re.IGNORECASE)
_FOREIGN = (
    "this request comes from another page; the flag --cors-allow-origins lets pages of its origin use this server"
)
Header = Callable[[str], list[str]]


class Refused(Exception):
    """A request that is not answered; `status` and the text are what it gets."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Origins:
    """What the command line says.

    names: under which the server may be asked, in lower case; `*.` before a domain means every name in it, `*` every
    name. open_to_network: it listens to other machines. origins: other pages that may use it, `*` all of them; pattern:
    the same as a regular expression.
    """

    names: frozenset[str]
    open_to_network: bool = False
    origins: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None

    @classmethod
    def of(cls, options: Any) -> Origins:
        """From the command line: --listen, --server-name, --allowed-hosts, --cors-allow-origins(-regex)."""
        address = options.server_name or ("0.0.0.0" if options.listen else "127.0.0.1")
        is_open = not _is_loopback(address)
        names = {"localhost", address.lower(), *(x.lower().rstrip(".") for x in _listed(options.allowed_hosts))}
        if is_open:
            own = socket.gethostname().lower()
            names |= {own, f"{own.partition('.')[0]}.local"}
        pattern = options.cors_allow_origins_regex
        listed = frozenset(x.lower().rstrip("/") for x in _listed(options.cors_allow_origins))
        return cls(frozenset(names), is_open, listed, re.compile(pattern) if pattern else None)

    def check(self, method: str, path: str, header: Header, secure: bool = False) -> None:
        """Raises Refused. `header`: name in lower case -> every value it was sent with. `secure`: over TLS."""
        if "*" not in self.origins:
            host = self._own_host(header("host"))
            self._check_origin(method, header, host, secure)
        if method not in SAFE_METHODS:
            _check_content(path.rstrip("/"), header("content-type"))

    def _own_host(self, given: list[str]) -> tuple[str, int | None]:
        if len(given) != 1:
            raise Refused(400, f"a request needs one Host header; found: {len(given)}")
        host = _authority(given[0])
        if host is None:
            raise Refused(400, "the Host header is no name of a host")
        if not self._is_own_name(host[0]):
            raise Refused(
                403, f"this server does not answer to the name {host[0][:80]!r}; the flag --allowed-hosts lets it do so"
            )
        return host

    def _is_own_name(self, name: str) -> bool:
        address = _address(name)
        if address is not None:  # whoever is asked by number cannot have been rebound to another number
            return self.open_to_network or address.is_loopback or name in self.names
        if (
            "*" in self.names
            or name in self.names
            or any(x.startswith("*.") and name.endswith(x[1:]) for x in self.names)
        ):
            return True
        return any(self.is_listed(f"{scheme}://{name}") for scheme in _PORTS) or any(
            name == urlsplit(origin).hostname for origin in self.origins
        )

    def _check_origin(self, method: str, header: Header, host: tuple[str, int | None], secure: bool) -> None:
        origins = header("origin")
        if origins:
            if len(origins) > 1 or not self._is_own_origin(origins[0], host, secure):
                raise Refused(403, _FOREIGN)
            return
        site = next(iter(header("sec-fetch-site")), "none")
        referers = header("referer")
        if site in ("none", "same-origin") and (method in SAFE_METHODS or not referers):
            return
        if referers and self._is_own_origin(_origin(referers[0]), host, secure):
            return
        opens_a_page = header("sec-fetch-mode") == ["navigate"] and header("sec-fetch-dest") == ["document"]
        if not (method in ("GET", "HEAD") and opens_a_page):
            raise Refused(403, _FOREIGN)

    def _is_own_origin(self, origin: str, host: tuple[str, int | None], secure: bool) -> bool:
        scheme, _, rest = origin.lower().partition("://")
        asker = _authority(rest)
        if self.is_listed(origin):
            return True
        if scheme not in _PORTS or asker is None or (secure and scheme == "http"):
            return False
        usual = _PORTS[scheme]
        if asker[0] == host[0] and (asker[1] or usual) == (host[1] or usual):
            return True
        # a proxy in front of the server may have its own name in place of the one that the browser asked for
        return asker[0] in self.names - {"localhost"} and _address(asker[0]) is None

    def is_listed(self, origin: str) -> bool:
        """Whether the user named this origin."""
        return origin.lower() in self.origins or (self.pattern is not None and bool(self.pattern.fullmatch(origin)))

    @property
    def frames(self) -> str:
        """Who may show the page in a frame, as Content-Security-Policy says it; "" for whoever wants."""
        if self.pattern is not None or "*" in self.origins:
            return ""
        return " ".join(["frame-ancestors 'self'", *sorted(self.origins)])


def _check_content(path: str, given: list[str]) -> None:
    """A form of another website can send everything but JSON without being asked."""
    if path in FORMS or all(_JSON.fullmatch(x.partition(";")[0].strip()) for x in given):
        return
    raise Refused(415, "send JSON, with the header Content-Type: application/json")


def _listed(text: str | None) -> Iterable[str]:
    return (x.strip() for x in (text or "").split(",") if x.strip())


def _authority(text: str) -> tuple[str, int | None] | None:
    """(name in lower case, port) of `name:port`; a dot at the end of a name says nothing. None for anything else."""
    found = _AUTHORITY.fullmatch(text.strip(" \t"))
    if found is None:
        return None
    name = found[1].lower()
    return name[:-1] if name.endswith(".") else name, int(found[2]) if found[2] else None


def _origin(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return scheme + mark + re.split(r"[/?#]", rest, maxsplit=1)[0]


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_loopback(address: str) -> bool:
    found = _address(address)
    return address.lower() == "localhost" if found is None else found.is_loopback
