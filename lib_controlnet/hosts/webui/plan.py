"""What is decided before a job begins: how many generations a batch of pictures needs, and the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.batch import Batch, is_batch
from ...core.errors import UnitError
from ...core.panel_options import PanelOptions
from ...core.units import ControlNetUnit
from .batch_results import BatchResults
from .batch_tab import TabBatch, tab_of
from .films import draws_film
from .metering import JobMeter
from .notes import say_late
from .prompts import FIRST_RESULT, apply_prompt_mode
from .stopping import was_interrupted

Setting = Callable[[str, Any], Any]


@dataclass(eq=False)
class Plan:
    """`n_iter` and `saves` are the job's own, which a batch changes; `changed` is what it made of them."""

    n_iter: int
    saves: tuple[bool, bool]
    changed: tuple[int, tuple[bool, bool]] = (0, (False, False))
    options: PanelOptions = field(default_factory=PanelOptions)
    batch: Batch | None = None
    notes: Sequence[str] = ()
    """What the user is to be told of the batch, once."""
    turn: int = 0
    results: BatchResults | None = None
    """Where the pictures of a batch are saved under their sources' names, if anywhere."""
    tab: TabBatch | None = None
    """The host's own batch of which this job is one picture."""
    last: NDArray[np.uint8] | None = None
    """The first result of the turn before, for units that loop."""


def make_plan(p: Any, options: PanelOptions, units: Sequence[ControlNetUnit], earlier: Plan | None = None) -> Plan:
    """Changes the number of generations and the prompt of a job that begins, and remembers what they were.

    The host's own batch tab runs one processing object many times, and other extensions run copies of one, so what an
    `earlier` plan changed is undone first, where nobody has changed it since.
    """
    if earlier is not None and earlier.changed == (p.n_iter, (p.do_not_save_samples, p.do_not_save_grid)):
        p.n_iter = earlier.n_iter
        p.do_not_save_samples, p.do_not_save_grid = earlier.saves
    apply_prompt_mode(p, options, units)
    plan = Plan(p.n_iter, (p.do_not_save_samples, p.do_not_save_grid), options=options)
    if any(is_batch(unit) for unit in units) and not draws_film(p):  # its frames are one generation
        _plan_batch(p, plan, units)
    plan.changed = (p.n_iter, (p.do_not_save_samples, p.do_not_save_grid))
    return plan


def _plan_batch(p: Any, plan: Plan, units: Sequence[ControlNetUnit]) -> None:
    """In the host's own batch of pictures every one of them takes its own of the units' pictures."""
    plan.tab = tab_of(p)
    if plan.tab is None:
        plan.batch = _batch(p, units)
        plan.notes = plan.batch.notes
        p.n_iter *= 1 if getattr(p, FIRST_RESULT, False) else plan.batch.length
        p.do_not_save_grid = True
    else:
        plan.tab.batch = plan.tab.batch or _batch(p, units)
        plan.batch, plan.notes = plan.tab.turn(), plan.tab.notes()
        plan.last = plan.tab.last
    if plan.batch.output_dir:
        copies = plan.n_iter * p.batch_size
        plan.results = BatchResults(Path(plan.batch.output_dir), plan.batch.names(copies))
        p.do_not_save_samples = True


def repeat_seeds(p: Any, plan: Plan, setting: Setting) -> None:
    """Every turn of a batch has the seeds of the first, unless the user wants them to go on."""
    if plan.batch is None or setting("controlnet_increment_seed_during_batch", False):
        return
    count = plan.n_iter * p.batch_size
    p.all_seeds = list(p.all_seeds[:count]) * plan.batch.length
    p.all_subseeds = list(p.all_subseeds[:count]) * plan.batch.length


def finish_batch(p: Any, plan: Plan, processed: Any, setting: Setting, meter: JobMeter | None = None) -> None:
    """A batch has ended: what the host made of saved pictures afterwards is saved; all are shown, or the last."""
    if plan.batch is None:
        return
    if plan.tab is None and plan.turn + 1 < plan.batch.length and not was_interrupted(after_this=True):
        made = f"{plan.turn + 1} of its {plan.batch.length} pictures"
        say_late(p, processed, f"another extension ended the batch early, after {made}")
    first = processed.index_of_first_image
    pictures = processed.images[first:]
    if plan.results is not None:
        plan.results.finish(pictures, processed.infotexts[first:], plan.n_iter * p.batch_size)
        if meter is not None:
            plan.results.write_adherence(meter.adherences())
    if plan.tab is not None:
        plan.tab.finish(plan.last)
    elif not setting("controlnet_show_batch_images_in_ui", False) and not getattr(p, "is_api", False):
        folder = plan.batch.output_dir or p.outpath_samples
        p.comment(f"ControlNet batch: {len(pictures)} pictures are in {folder}; the last is shown.")
        processed.comments = "".join(f"{comment}\n" for comment in p.comments)
        processed.images = pictures[-1:]
        processed.infotexts = processed.infotexts[-1:]
        processed.index_of_first_image = 0


def _batch(p: Any, units: Sequence[ControlNetUnit]) -> Batch:
    from modules import shared

    folders = any(unit.batch_dir or unit.output_dir for unit in units if is_batch(unit))
    if folders and (getattr(p, "is_api", False) or getattr(shared.cmd_opts, "hide_ui_dir_config", False)):
        raise UnitError(
            "folders of the server can be chosen on its own page only",
            field="batch_dir",
            remedy="send the pictures as images, with the input mode batch",
        )
    if not isinstance(p.prompt, str):
        raise UnitError(
            "a batch does not go together with a script that makes a list of prompts",
            field="input_mode",
            found=f"{len(p.prompt)} prompts",
            remedy="switch the script off, or use the input mode simple",
        )
    batch = Batch([unit for unit in units if unit.enabled])
    if batch.output_dir:
        _make_folder(Path(batch.output_dir), batch)
    return batch


def _make_folder(folder: Path, batch: Batch) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own = next((source for source in batch.folders if source.samefile(folder)), None)
    except (OSError, ValueError) as error:
        raise UnitError(
            "the folder for the results cannot be made",
            field="output_dir",
            found=str(error),
            remedy="choose another folder",
        ) from error
    if own is not None:
        raise UnitError(
            "the folder for the results is the one that the pictures come from, and would overwrite them",
            field="output_dir",
            found=f"{folder}, which is {own.resolve()}",
            remedy="choose another folder for the results",
        )
