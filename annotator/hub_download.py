"""One file from the Hugging Face hub into a folder; run by weights.py as a process of its own.

Argument: JSON with repo, path, repo_type and folder. Last line of the output: JSON with the file and the sha256 that
the hub has on record (empty for small files, of which it keeps none), or the reason of the failure with exit code 1.

huggingface_hub finds the address, the login and the record. The bytes are fetched here, since its current releases
begin anew what was broken off, and these files are large.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

TRIES = 5
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
    """Append to `partial` what it lacks; a server that does not know ranges makes it begin anew.

    `url` is the hub's own: requests follows it to where the bytes lie and leaves the login behind on the way.
    """
    have = partial.stat().st_size if partial.exists() else 0
    wanted = {**headers, "Range": f"bytes={have}-", "Accept-Encoding": "identity"}
    with requests.get(url, headers=wanted, stream=True, timeout=_TIMEOUT) as answer:
        if answer.status_code == 416:  # it has all bytes already
            return
        answer.raise_for_status()
        with partial.open("ab" if answer.status_code == 206 else "wb") as file:
            for block in answer.iter_content(_BLOCK):
                file.write(block)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
