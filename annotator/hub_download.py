"""One file from the Hugging Face hub into a cache folder; run by weights.py as a process of its own.

Argument: JSON with repo, path, repo_type and cache. Last line of the output: JSON with the file and the sha256 that the
hub has on record (empty for small files, of which it keeps none), or the reason of the failure with exit code 1.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def main(order: dict[str, str]) -> int:
    """Download what `order` says; returns the exit code."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        print(f"the Python package huggingface_hub is needed to download: {error}")
        return 1
    try:
        file = hf_hub_download(
            repo_id=order["repo"], filename=order["path"], repo_type=order["repo_type"], cache_dir=order["cache"]
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent process tells the user
        print(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    # In the hub's cache a file is a link to a blob that has the name of its ETag, for large files their sha256.
    blob = Path(file).resolve()
    print(json.dumps({"file": str(blob), "sha256": blob.name if re.fullmatch("[0-9a-f]{64}", blob.name) else ""}))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
