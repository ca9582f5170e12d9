"""The host's own batch of img2img: one job for each picture of a folder, with the same arguments.

A unit with a folder of maps gives each of these jobs its own map. The host does not tell a job that it is one of many,
so its `process_batch` is wrapped while scripts are loaded (as by sd-webui-controlnet), and only counts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.batch import Batch
from ..core.errors import HostError, UnitError

_TAB = "controlnet_tab_batch"
"""The attribute of the host's processing object that holds its TabBatch."""
_OURS = "controlnet_wrapper"
"""The attribute of our wrapper: itself, and what it wraps."""
_KINDS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
"""What A1111 takes of a folder."""


@dataclass(eq=False)
class TabBatch:
    """`pictures`: how many the host takes; None where that is not known. `frame`: the one in work, from 0."""

    pictures: int | None
    frame: int = -1
    batch: Batch | None = None
    last: NDArray[np.uint8] | None = None

    def turn(self) -> Batch:
        """The units' pictures for the frame in work. Raises ControlNetError where there are none."""
        if self.batch is None or self.frame < 0:
            raise HostError(
                "this host does not tell which picture of its batch it makes, so that none can have its own map",
                remedy="use the unit's batch in txt2img or with a single picture in img2img",
            )
        if self.frame >= self.batch.length:
            raise UnitError(
                "the batch of img2img has more pictures than the units have",
                field="batch_dir",
                found=f"{self.batch.length} pictures for the units; this is number {self.frame + 1}",
                remedy="give each picture its own, under names that sort alike",
            )
        return self.batch.only(self.frame)

    def notes(self) -> list[str]:
        """What is to be said of the whole batch, at its first frame."""
        if self.batch is None or self.frame:
            return []
        notes = self.batch.notes
        if self.pictures is not None and self.pictures != self.batch.length:
            counts = f"{self.pictures} pictures of img2img and {self.batch.length} of the units"
            notes.append(f"the shorter batch decides: there are {counts}")
        return notes

    def finish(self, last: NDArray[np.uint8] | None) -> None:
        """A frame is made; the host is stopped after the last that has pictures for its units."""
        self.last = last
        if self.batch is None or self.frame + 1 < self.batch.length:
            return
        if self.pictures is None or self.frame + 1 < self.pictures:
            from modules import shared

            shared.state.interrupted = True


def tab_of(p: Any) -> TabBatch | None:
    """The host's batch of which the job `p` is one picture."""
    return getattr(p, _TAB, None)


def wrap() -> None:
    """Lets the host's batches be counted from now on; again after a reload of the scripts."""
    from modules import img2img

    unwrap()
    original = img2img.process_batch

    @functools.wraps(original)
    def process_batch(p: Any, *args: Any, **kwargs: Any) -> Any:
        tab = TabBatch(_count(args[0] if args else kwargs.get("input")))
        setattr(p, _TAB, tab)
        p.scripts.run = _counted(tab, p.scripts.run)
        try:
            return original(p, *args, **kwargs)
        finally:
            p.__dict__.pop(_TAB, None)
            p.scripts.__dict__.pop("run", None)

    setattr(process_batch, _OURS, (process_batch, original))
    img2img.process_batch = process_batch


def unwrap() -> None:
    """Puts the host's own function back, unless somebody has wrapped ours since."""
    from modules import img2img

    ours, original = getattr(img2img.process_batch, _OURS, (None, None))
    if ours is img2img.process_batch:  # a wrapper around ours may have its attributes as well
        img2img.process_batch = original


def _counted(tab: TabBatch, run: Callable[..., Any]) -> Callable[..., Any]:
    """Hosts ask the selected script once for each picture, before they make it themselves."""

    def counted(*args: Any, **kwargs: Any) -> Any:
        tab.frame += 1
        return run(*args, **kwargs)

    return counted


def _count(pictures: Any) -> int | None:
    if isinstance(pictures, (list, tuple)):
        return len(pictures)
    if not isinstance(pictures, str):
        return None
    from modules import shared

    return sum(1 for _ in shared.walk_files(pictures, allowed_extensions=_KINDS))
