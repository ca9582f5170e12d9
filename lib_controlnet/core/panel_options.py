"""What the user chooses for all units of a job: how the prompt is made, and which unit acts on which picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import cast

from .errors import UnitError
from .legacy import read_choice

DEFAULT_PROMPT = "a professional, detailed, high-quality image"
"""The default prompt of the ControlNet paper (arXiv 2302.05543, 4.1)."""

KEYS = frozenset(("prompt_mode", "caption", "batch_option"))
PROMPT_MODE_KEY = "ControlNet Prompt Mode"
"""The generation parameter that holds the prompt mode."""
BATCH_OPTION_KEY = "ControlNet Batch Option"


class PromptMode(str, Enum):
    """The paper's settings of the prompt. All leave a typed prompt as it is."""

    typed = "As typed"
    default = "Default prompt if empty"
    source = "Automatic: caption of the unit's picture"
    result = "Automatic: caption of a first result"


class BatchOption(str, Enum):
    """Which units act on the pictures of a batch (sd-webui-controlnet's words)."""

    all_units = "All ControlNet units for all images in a batch"
    one_each = "Each ControlNet unit for each image in a batch"


@dataclass(frozen=True)
class PanelOptions:
    """`caption`: what the automatic modes would find, where the user has read or edited it already."""

    prompt_mode: PromptMode = PromptMode.typed
    caption: str = ""
    batch_option: BatchOption = BatchOption.all_units


def is_options(value: object) -> bool:
    """Whether an argument of our script is meant as these options and not as a unit."""
    if not isinstance(value, Mapping):
        return False
    keys = set(cast("Mapping[object, object]", value))
    return bool(keys) and keys <= KEYS


def parse_options(given: object) -> PanelOptions:
    """Reads a mapping with the fields' names; what is not given or None has its default. Raises UnitError."""
    fields = {key: item for key, item in cast("Mapping[str, object]", given).items() if item is not None}
    mode = _choice(PromptMode, "prompt_mode", fields)
    option = _choice(BatchOption, "batch_option", fields)
    return PanelOptions(
        PromptMode(mode or PromptMode.typed),
        str(fields.get("caption", "")).strip(),
        BatchOption(option or BatchOption.all_units),
    )


def _choice(kind: type[Enum], key: str, fields: Mapping[str, object]) -> Enum | None:
    if key not in fields:
        return None
    try:
        return read_choice(kind, fields[key])
    except UnitError as error:
        raise UnitError(error.problem, field=key, found=error.found, remedy=error.remedy) from None
