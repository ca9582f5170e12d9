"""What a job shows for its control: detected maps beside the pictures, and the infotext of its units."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.batch import together
from ...core.infotext import format_unit, unit_key
from ...core.step import Pass
from ...engine.generation import UnitRun
from ...engine.session import ControlSession
from .notes import say_all
from .pictures import is_upscale_script

Setting = Callable[[str, Any], Any]


def write_infotext(p: Any, session: ControlSession, asked: Collection[int]) -> None:
    """One generation parameter for each unit in `asked`, under its own number; one that merges pictures is one again.

    What was let pass or replaced while its units were read and their pictures preprocessed is said with it.
    """
    first = {run.unit.index: run for run in reversed(session.runs)}
    for run in reversed([run for run in first.values() if run.unit.index in asked]):
        p.extra_generation_params[unit_key(run.unit.index)] = format_unit(
            together([other.unit for other in session.runs if other.unit.index == run.unit.index]),
            preprocessor=run.spec.id,
            model=run.model_name,
            resolution=run.results[0].resolution,
            params=run.results[0].params,
        )
    for run in session.runs:
        say_all(p, run.unit.notes, unit=run.unit.index)
        for result in run.results:
            say_all(p, result.notes, unit=run.unit.index)


def add_maps(p: Any, processed: Any, session: ControlSession, setting: Setting) -> None:
    """Appends every unit's maps after the pictures (hires before base, as the peers) and saves them where asked."""
    autosave = bool(setting("control_net_detectmap_autosaving", False))
    show = not (setting("control_net_no_detectmap", False) or is_upscale_script(p) or counts_pictures(p))
    for run, pass_, display in _maps(session):
        image = Image.fromarray(np.ascontiguousarray(display))
        if show:
            processed.images.append(image)
        if autosave:
            _save(p, run, pass_, image, str(setting("control_net_detectedmap_dir", "detected_maps")))


def counts_pictures(p: Any) -> bool:
    """Whether the selected script is "Prompt matrix", whose grid labels fit pictures only."""
    chosen = (getattr(p, "script_args", None) or (0,))[0]
    scripts = getattr(getattr(p, "scripts", None), "selectable_scripts", ())
    if not isinstance(chosen, int) or not 0 < chosen <= len(scripts):
        return False
    return scripts[chosen - 1].title().lower() == "prompt matrix"


def _maps(session: ControlSession) -> Iterator[tuple[UnitRun, Pass, NDArray[np.uint8]]]:
    shown = ((run, pass_) for run in session.runs if run.unit.save_map for pass_ in (Pass.hires, Pass.base))
    for run, pass_ in shown:
        for hint in run.hints.get(pass_, ()):
            yield run, pass_, hint.display


def _save(p: Any, run: UnitRun, pass_: Pass, image: Image.Image, folder: str) -> None:
    from modules import images

    path = Path(folder)
    if not path.is_absolute():
        path = Path(p.outpath_samples) / path
    suffix = "" if pass_ is Pass.base else "-hires"
    images.save_image(image, str(path / run.spec.id), f"{run.spec.id}{suffix}", seed=None, prompt=None, extension="png")
