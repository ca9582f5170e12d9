"""What the user chooses for all units of a job: how the prompt is made, and which unit acts on which picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TypeVar, cast

from .errors import UnitError
from .legacy import read_choice
from .modes import HiResOption
from .study import Study, read_study
from .units import ControlNetUnit
from .values import read_bool

Value = TypeVar("Value")

DEFAULT_PROMPT = "a professional, detailed, high-quality image"
"""The default prompt of the ControlNet paper (arXiv 2302.05543, 4.1)."""

KEYS = frozenset(("prompt_mode", "caption", "batch_option", "style_align", "study"))
PROMPT_MODE_KEY = "ControlNet Prompt Mode"
"""The generation parameter that holds the prompt mode."""
BATCH_OPTION_KEY = "ControlNet Batch Option"
STYLE_ALIGN_KEY = "ControlNet StyleAlign"


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
    """`caption`: what the automatic modes would find, where the user has read or edited it already.

    `style_align`: the pictures of a batch are to be alike in style, in the first pass. `study`: what the job is to
    find out before it makes its pictures.
    """

    prompt_mode: PromptMode = PromptMode.typed
    caption: str = ""
    batch_option: BatchOption = BatchOption.all_units
    style_align: bool = False
    study: Study | None = None

    def units(self, index: int) -> Sequence[ControlNetUnit]:
        """What acts beside the user's units, of which `index` is the first free number."""
        if not self.style_align:
            return ()
        return (ControlNetUnit(index=index, enabled=True, preprocessor="style_align", hr_option=HiResOption.low),)


def is_options(value: object) -> bool:
    """Whether an argument of our script is meant as these options and not as a unit."""
    if not isinstance(value, Mapping):
        return False
    keys = set(cast("Mapping[object, object]", value))
    return bool(keys) and keys <= KEYS


def parse_options(given: object) -> PanelOptions:
    """Reads a mapping with the fields' names; what is not given or None has its default. Raises UnitError."""
    fields = {key: item for key, item in cast("Mapping[str, object]", given).items() if item is not None}
    return PanelOptions(
        _read(partial(read_choice, PromptMode), "prompt_mode", fields, PromptMode.typed),
        str(fields.get("caption", "")).strip(),
        _read(partial(read_choice, BatchOption), "batch_option", fields, BatchOption.all_units),
        _read(read_bool, "style_align", fields, False),
        read_study(fields.get("study")),
    )


def _read(read: Callable[[object], Value], key: str, fields: Mapping[str, object], default: Value) -> Value:
    if key not in fields:
        return default
    try:
        return read(fields[key])
    except UnitError as error:
        raise UnitError(error.problem, field=key, found=error.found, remedy=error.remedy) from None
