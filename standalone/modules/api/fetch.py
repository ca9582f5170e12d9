"""Pictures by address, fetched so that nobody makes this server ask its own network.

Every address on the way, redirects included, must be http or https and stand for public machines only; the connection
goes to the very machine that was looked at, so that a name cannot mean another one a moment later.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from urllib.parse import SplitResult, quote, urljoin, urlsplit

PORTS = {"http": 80, "https": 443}
MOST_HOPS, MOST_BYTES, SECONDS = 5, 128 << 20, 30
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_MOVED = (301, 302, 303, 307, 308)


class NotFetched(Exception):
    """The address is not asked, or has no good answer; the text says why, without anything of the answer."""


def public_addresses(url: str) -> list[str]:
    """The addresses of the URL's host. Raises NotFetched unless it is a http(s) URL and all of them are public."""
    parts = _parts(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or PORTS[parts.scheme], type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotFetched("the host of the address is not known") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not addresses or not all(_is_public(address) for address in addresses):
        raise NotFetched("Request to local resource not allowed")
    return addresses


def fetch(url: str, agent: str = "", *, local: bool = False) -> bytes:
    """What the address holds. `local`: the user allows addresses of this network. Raises NotFetched."""
    end = time.monotonic() + SECONDS
    for _ in range(MOST_HOPS):
        parts = _parts(url)
        address = str(parts.hostname) if local else public_addresses(url)[0]
        try:
            moved, content = _ask(parts, address, agent, end)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotFetched(f"the address does not answer ({type(error).__name__})") from error
        if not moved:
            return content
        url = urljoin(url, moved)
    raise NotFetched(f"the address leads on to others more than {MOST_HOPS} times")


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in PORTS and parts.hostname and parts.port != 0
    except ValueError as error:  # a port or a bracket that is none
        raise NotFetched("this is no address") from error
    if not usable or parts.username is not None or any(ord(letter) <= 32 for letter in url):
        raise NotFetched("only http:// and https:// addresses without a login are fetched")
    return parts


def _is_public(text: str) -> bool:
    """Also for IPv6 addresses in which an IPv4 one is written (mapped, NAT64, 6to4)."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        nat = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        inner = address.ipv4_mapped or nat
        if inner is not None:
            return _is_public(str(inner))
        if address.sixtofour is not None and not _is_public(str(address.sixtofour)):
            return False
    return address.is_global and not address.is_multicast


def _ask(parts: SplitResult, address: str, agent: str, end: float) -> tuple[str, bytes]:
    """(address that it leads on to, "") or ("", content)."""
    host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
    left = max(end - time.monotonic(), 0.1)
    connection = http.client.HTTPConnection(host, port, timeout=left)
    sock = socket.create_connection((address, port), timeout=left)
    try:
        if parts.scheme == "https":
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        connection.sock = sock
        headers = {"Host": parts.netloc, **({"User-Agent": agent} if agent else {})}
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", quote(target, safe="/?%:@!$&'()*+,;=~"), headers=headers)
        answer = connection.getresponse()
        if answer.status in _MOVED and answer.getheader("Location"):
            return str(answer.getheader("Location")), b""
        if answer.status >= 400:
            raise NotFetched(f"the address answers {answer.status}")
        return "", _content(answer, end)
    finally:
        sock.close()


def _content(answer: http.client.HTTPResponse, end: float) -> bytes:
    blocks: list[bytes] = []
    size = 0
    while block := answer.read(1 << 16):
        blocks.append(block)
        size += len(block)
        if size > MOST_BYTES:
            raise NotFetched(f"the address holds more than {MOST_BYTES >> 20} MiB")
        if time.monotonic() > end:
            raise NotFetched(f"the address takes longer than {SECONDS} seconds")
    return b"".join(blocks)
