"""One file from the Hugging Face hub into a folder; run by weights.py as a process of its own.

Argument: JSON with repo, path, repo_type and folder. Last line of the output: JSON with the file and the sha256 that
the hub has on record (empty for small files, of which it keeps none), or the reason of the failure with exit code 1.

huggingface_hub finds the address, the login and the record. The bytes are fetched here, since its current releases
begin anew what was broken off, and these files are large.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

TRIES = 5
HOPS = 5
_BLOCK = 1 << 20
_TIMEOUT = 30


def main(order: dict[str, str]) -> int:
    """Download what `order` says; returns the exit code."""
    try:
        answer = fetch(order)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent process tells the user
        print(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    print(json.dumps(answer))
    return 0


def fetch(order: dict[str, str]) -> dict[str, str]:
    """Bring the file, going on where an earlier call ended; raises what the libraries raise."""
    import requests
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(order["repo"], order["path"], repo_type=order["repo_type"])
    found = get_hf_file_metadata(url)
    record = (found.etag or "unnamed").strip('"')
    partial = Path(order["folder"]) / f"{record}.partial"
    for left in reversed(range(TRIES)):
        try:
            _append(requests, url, build_hf_headers(), partial)
        except requests.RequestException:
            if not left:
                raise
        size = partial.stat().st_size if partial.exists() else 0
        if size == (found.size or size):
            return {"file": str(partial), "sha256": record if re.fullmatch("[0-9a-f]{64}", record) else ""}
        time.sleep(1)
    raise OSError(f"the connection broke {TRIES} times; {partial.stat().st_size} of {found.size} bytes have come")


def _append(requests: Any, url: str, headers: dict[str, str], partial: Path) -> None:
    """Append to `partial` what it lacks; a server that does not know ranges makes it begin anew."""
    have = partial.stat().st_size if partial.exists() else 0
    wanted = {**headers, "Range": f"bytes={have}-", "Accept-Encoding": "identity"}
    with _follow(requests, url, wanted) as answer:
        if answer.status_code == 416:  # it has all bytes already
            return
        answer.raise_for_status()
        with partial.open("ab" if answer.status_code == 206 else "wb") as file:
            for block in answer.iter_content(_BLOCK):
                file.write(block)


def _follow(requests: Any, url: str, headers: dict[str, str]) -> Any:
    """The answer of the hub, or of where it leads to. The login is left behind where the host is another.

    Raises OSError for a redirect that is not allowed; see `_check_redirect`.
    """
    start = urlsplit(url)
    for _ in range(HOPS):
        answer = requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT, allow_redirects=False)
        if not (answer.is_redirect or answer.is_permanent_redirect):
            return answer
        answer.close()
        url = urljoin(url, answer.headers["Location"])
        following = urlsplit(url)
        if (following.scheme, following.netloc) != (start.scheme, start.netloc):
            _check_redirect(start, following, bool(requests.utils.get_environ_proxies(url)))
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    raise OSError(f"the hub leads on to other addresses more than {HOPS} times")


def _check_redirect(start: SplitResult, target: SplitResult, by_proxy: bool) -> None:
    """The hub is where the user said (HF_ENDPOINT); what it leads to must be as safe as the hub itself.

    That is https where the hub is, and a public machine: else whoever answers for the hub could have this computer ask
    its own network. With a proxy, the proxy decides which machines it asks. Raises OSError.
    """
    if target.scheme != "https" and target.scheme != start.scheme:
        raise OSError(f"the hub leads on to {target.scheme or 'no'} address, which is not allowed")
    if target.hostname is None:
        raise OSError("the hub leads on to no host")
    if by_proxy:
        return
    found = socket.getaddrinfo(target.hostname, target.port or 443, type=socket.SOCK_STREAM)
    for *_, place in found:
        address = ipaddress.ip_address(str(place[0]).partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if not address.is_global or address.is_multicast:
            raise OSError(f"the hub leads on to {target.hostname}, which is no public machine")


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
