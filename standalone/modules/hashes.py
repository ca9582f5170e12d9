"""sha256 of model files, remembered in the data folder by size and time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from modules import errors
from modules.paths_internal import data_path
from modules.shared_cmd_options import cmd_opts

from lib_controlnet.core.files import put_aside, write_whole

_cache: dict[str, dict[str, object]] = {}


def _cache_file() -> Path:
    return Path(data_path) / "cache.json"


def _read_cache() -> dict[str, dict[str, object]]:
    """What is remembered; a damaged file is put aside, since all of it can be computed again."""
    try:
        content = json.loads(_cache_file().read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return {title: known for title, known in content.items() if isinstance(known, dict) and "sha256" in known}
    except (ValueError, RecursionError):
        pass
    errors.report(f"{_cache_file()} is damaged and was put aside: {put_aside(_cache_file())}")
    return {}


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
        _cache.update(_read_cache())
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
    write_whole(_cache_file(), json.dumps(_cache, indent=1))
    return value
