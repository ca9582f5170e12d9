"""The files by which a training and whoever watches it know of each other; nothing here needs PyTorch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LOG = "log.jsonl"
STOP = "stop"
"""A file of this name in the output folder ends the training after its step."""


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a training's log; a last line that was cut by a kill is left out."""
    path = folder / LOG
    if not path.is_file():
        return
    for line in path.read_text("utf-8").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def write_toml(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """`tables` of plain values as TOML; None is left out. JSON's strings, numbers and arrays are TOML's too."""
    lines: list[str] = []
    for section, values in tables.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
        lines.append("")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), "utf-8")
