"""sha256 of model files, remembered in the data folder by size and time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from modules.paths_internal import data_path
from modules.shared_cmd_options import cmd_opts

_cache: dict[str, dict[str, object]] = {}


def _cache_file() -> Path:
    return Path(data_path) / "cache.json"


def calculate_sha256(filename: str) -> str:
    digest = hashlib.sha256()
    with open(filename, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _stamp(filename: str) -> dict[str, object]:
    stat = Path(filename).stat()
    return {"path": str(filename), "mtime": stat.st_mtime_ns, "size": stat.st_size}


def sha256_from_cache(filename: str, title: str, use_addnet_hash: bool = False) -> str | None:
    """The remembered hash of an unchanged file, else None."""
    if not _cache and _cache_file().is_file():
        _cache.update(json.loads(_cache_file().read_text(encoding="utf-8")))
    known = _cache.get(title)
    if known is None or {k: known.get(k) for k in ("path", "mtime", "size")} != _stamp(filename):
        return None
    return str(known["sha256"])


def sha256(filename: str, title: str, use_addnet_hash: bool = False) -> str | None:
    """Hash of the file, computed on first use; None with --no-hashing."""
    known = sha256_from_cache(filename, title)
    if known is not None or cmd_opts.no_hashing:
        return known
    value = calculate_sha256(filename)
    _cache[title] = {**_stamp(filename), "sha256": value}
    _cache_file().write_text(json.dumps(_cache, indent=1), encoding="utf-8")
    return value
