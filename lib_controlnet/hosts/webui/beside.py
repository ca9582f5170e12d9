"""Another ControlNet in the same WebUI: the one that Forge's hosts bring, or sd-webui-controlnet.

Scripts are known by their titles, to the API too, and the other one is there first. While it is on, ours has another
title and leaves it the routes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import HostError

log = logging.getLogger("ControlNet")

TITLE = "ControlNet"
BESIDE = "ControlNet (extension)"
"""Our title beside another ControlNet."""


@dataclass(frozen=True)
class Other:
    """folder: of the extension, by which the host knows it. users: other extensions that import from it."""

    folder: str
    users: tuple[str, ...] = ()


def other_controlnet() -> Other | None:
    """The other ControlNet that is on; None where ours is alone."""
    from modules import scripts

    for data in getattr(scripts, "scripts_data", ()):
        if getattr(data.script_class, "sd_controlnet", False):
            continue
        if Path(str(data.path)).stem == "controlnet" and _title(data.script_class) == TITLE.lower():
            folder = Path(str(data.basedir))
            return Other(folder.name, tuple(_users(folder)))
    return None


def _title(script_class: Any) -> str:
    """Only scripts of the file's name are asked: others may do anything when they are made."""
    try:
        return str(script_class().title()).lower()
    except Exception as error:  # noqa: BLE001 (a stranger's constructor can raise anything)
        log.debug("The title of %s is not known: %s", script_class, error)
        return ""


def _users(folder: Path) -> list[str]:
    """The host's own extensions beside it whose scripts import its package."""
    if not (folder / "lib_controlnet").is_dir() or folder.parent.name != "extensions-builtin":
        return []
    beside = [entry for entry in sorted(folder.parent.iterdir()) if entry != folder and (entry / "scripts").is_dir()]
    return [entry.name for entry in beside if any(map(_imports, (entry / "scripts").glob("*.py")))]


def _imports(script: Path) -> bool:
    text = script.read_text(encoding="utf-8", errors="replace")
    return "from lib_controlnet" in text or "import lib_controlnet" in text


def may_switch() -> bool:
    """Whether the page may change extensions: hosts forbid it where others can reach them (`--listen`, `--share`)."""
    from modules import shared

    return not getattr(shared.cmd_opts, "disable_extension_access", False)


def switch_off(other: Other) -> None:
    """Takes it out of the extensions that the host loads, from the next reload of its page on.

    Raises HostError where the host lets nobody change extensions from the page.
    """
    from modules import shared

    if not may_switch():
        raise HostError(
            "this WebUI was started so that its page cannot change extensions",
            remedy=f'add "{other.folder}" to disabled_extensions in config.json, or start it with '
            "--enable-insecure-extension-access",
        )
    disabled: Sequence[str] = getattr(shared.opts, "disabled_extensions", None) or ()
    shared.opts.disabled_extensions = [*(name for name in disabled if name != other.folder), other.folder]
    shared.opts.save(shared.config_filename)
    shared.state.request_restart()
