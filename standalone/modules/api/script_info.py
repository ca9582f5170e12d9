"""Description of a script's arguments, for GET /sdapi/v1/script-info."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field


class ScriptArg(BaseModel):
    label: str | None = Field(default=None, title="Label", description="Name of the argument in UI")
    value: Any | None = Field(default=None, title="Value", description="Default value of the argument")
    minimum: Any | None = Field(default=None, title="Minimum", description="Smallest value in UI")
    maximum: Any | None = Field(default=None, title="Maximum", description="Largest value in UI")
    step: Any | None = Field(default=None, title="Step", description="Step of the value in UI")
    choices: list[str] | None = Field(default=None, title="Choices", description="Possible values")


class ScriptInfo(BaseModel):
    name: str | None = Field(default=None, title="Name", description="Script name")
    is_alwayson: bool | None = Field(default=None, title="IsAlwayson", description="Whether it runs in every job")
    is_img2img: bool | None = Field(default=None, title="IsImg2img", description="Whether it is img2img's instance")
    args: list[ScriptArg] = Field(title="Arguments", description="The script's arguments")


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool, list, dict, tuple))


def describe(script: Any, controls: Sequence[Any]) -> ScriptInfo:
    """Labels, defaults and limits of the widgets `ui()` returned."""
    args: list[ScriptArg] = []
    for control in controls:
        values = {name: getattr(control, name, None) for name in ("value", "minimum", "maximum", "step")}
        choices = getattr(control, "choices", None)
        names = None if choices is None else [str(x[0] if isinstance(x, tuple) else x) for x in choices]
        known = {k: v for k, v in values.items() if v is not None and _plain(v)}
        args.append(ScriptArg(label=getattr(control, "label", None) or "", choices=names, **known))
    return ScriptInfo(name=script.name, is_alwayson=script.alwayson, is_img2img=script.is_img2img, args=args)
