"""Units among the arguments of a host's scripts: found, read, replaced.

Other extensions do this between the making of a processing object and its run. Our script has slots for units before
its widgets' values, so the number of arguments stays the same and no other script's arguments move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from ..core.arguments import widget_mappings
from ..core.panel_options import is_options
from ..core.units import is_unit
from .arguments import ControlNetArgument, plain_arguments, unit_arguments, unit_of_widgets
from .unit import ControlNetUnit

Arguments = TypeVar("Arguments", list[Any], tuple[Any, ...])


def is_cn_script(script: Any) -> bool:
    """Whether a script is our ControlNet script: another one may have its title."""
    return bool(getattr(script, "sd_controlnet", False))


def find_cn_script(script_runner: Any) -> Any | None:
    """The ControlNet script of a runner; None where there is none."""
    scripts = getattr(script_runner, "alwayson_scripts", None) or ()
    return next((script for script in scripts if is_cn_script(script)), None)


def to_processing_unit(unit: Any) -> Any:
    """A dict becomes a ControlNetUnit; objects stay what they are."""
    return ControlNetUnit.from_dict(cast("Mapping[str, Any]", unit)) if isinstance(unit, Mapping) else unit


def units_in(arguments: Sequence[Any]) -> list[Any]:
    """The units among our script's arguments: those in slots, else those of the widgets."""
    given = [to_processing_unit(item) for item in arguments if _is_unit(item)]
    return given or [unit_of_widgets(fields) for fields in widget_mappings(plain_arguments(arguments))]


def get_all_units(script_runner: Any, script_args: Sequence[Any]) -> list[Any]:
    """The units of a runner's ControlNet script; [] where there is no such script."""
    script = find_cn_script(script_runner)
    if script is None or len(script_args) < script.args_from:
        return []
    return units_in(script_args[script.args_from : script.args_to])


def update_cn_script(script_runner: Any, script_args: Arguments, units: Sequence[Any], count: int) -> Arguments:
    """The arguments with these units instead of those they had, padded with disabled ones up to `count`.

    Arguments without our script come back as they are. Where there are more units than our script has arguments,
    the arguments grow and the scripts after ours are moved, as in the peers.
    """
    script = find_cn_script(script_runner)
    if script is None or not isinstance(script_args, (list, tuple)) or len(script_args) < script.args_from:
        return script_args
    old = list(script_args[script.args_from : script.args_to])
    new: list[Any] = [to_processing_unit(unit) for unit in units]
    new += [ControlNetUnit() for _ in range(count - len(new))]
    rest = [None if _is_unit(item) else item for item in old[len(new) :]]
    new += [None] * (script.args_to - script.args_from - len(new) - len(rest))
    new = unit_arguments([*new, *rest])
    _move_following(script_runner, script, len(new) - (script.args_to - script.args_from))
    result = [*script_args[: script.args_from], *new, *script_args[script.args_from + len(old) :]]
    script.args_to = script.args_from + len(new)
    return cast(Arguments, type(script_args)(result))


def put_units(p: Any, change: Callable[[Any, Any], Any]) -> None:
    """Sets a processing object's arguments to what `change(runner, arguments)` makes of them."""
    arguments = getattr(p, "script_args_value", None)
    p.script_args = change(p.scripts, p.script_args if arguments is None else arguments)


def _move_following(script_runner: Any, script: Any, by: int) -> None:
    if by == 0:
        return
    for other in script_runner.alwayson_scripts:
        if other is not script and other.args_from >= script.args_to:
            other.args_from += by
            other.args_to += by


def _is_unit(item: Any) -> bool:
    if isinstance(item, ControlNetArgument):
        return item.is_unit()
    return item is not None and is_unit(item) and not is_options(item)
