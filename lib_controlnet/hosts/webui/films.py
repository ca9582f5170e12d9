"""Whether another extension draws the pictures of a batch as the frames of one film (AnimateDiff)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

_TITLE = "animatediff"


def draws_film(p: Any) -> bool:
    """Whether AnimateDiff is enabled for a job: its one argument is an object, or a mapping in a request."""
    for script in getattr(getattr(p, "scripts", None), "alwayson_scripts", ()):
        if script.title().lower() == _TITLE and script.args_from is not None:
            given = getattr(p, "script_args", None) or ()
            return any(map(_enabled, given[script.args_from : script.args_from + 1]))
    return False


def _enabled(given: object) -> bool:
    if isinstance(given, Mapping):
        return bool(cast("Mapping[str, object]", given).get("enable"))
    return bool(getattr(given, "enable", False))
