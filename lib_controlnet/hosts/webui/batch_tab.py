"""The host's own batch of img2img: one job for each picture of a folder, with the same arguments.

A unit with a folder of maps gives each of these jobs its own map. The host does not tell a job that it is one of many,
so its `process_batch` is wrapped while scripts are loaded (as by sd-webui-controlnet), and only counts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.batch import Batch
from ...core.errors import HostError, UnitError

_TAB = "controlnet_tab_batch"
"""The attribute of the host's processing object that holds its TabBatch."""
_OURS = "controlnet_wrapper"
"""The attribute of our wrapper: itself, and what it wraps."""
_KINDS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
"""What A1111 takes of a folder."""
_PLACE = re.compile(r"(\d+) out of (\d+)")
"""How it says at which picture it is, just before it asks the selected script."""


@dataclass(eq=False)
class TabBatch:
    """`files`: what the host takes, in its order; None where that is not known. `frame`: the one in work, from 0."""

    files: Sequence[str] | None
    frame: int = -1
    batch: Batch | None = None
    last: NDArray[np.uint8] | None = None

    @property
    def pictures(self) -> int | None:
        """How many pictures the host's folder has, hidden files not counted."""
        return None if self.files is None else sum(not _is_hidden(file) for file in self.files)

    def step(self, job: str) -> None:
        """The host comes to its next picture. It passes over files that it cannot read, and says at which it is."""
        self.frame += 1
        said = _PLACE.match(job)
        if said is None or self.files is None or int(said[2]) != len(self.files):
            return
        self.frame = sum(not _is_hidden(file) for file in self.files[: int(said[1]) - 1])

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
    original = getattr(img2img, "process_batch", None)
    if original is None:  # a host without such batches
        return

    @functools.wraps(original)
    def process_batch(p: Any, *args: Any, **kwargs: Any) -> Any:
        tab = TabBatch(_files(args[0] if args else kwargs.get("input")))
        setattr(p, _TAB, tab)
        runner = p.scripts
        if runner is not None:
            runner.run = _counted(tab, runner.run)
        try:
            return original(p, *args, **kwargs)
        finally:
            p.__dict__.pop(_TAB, None)
            if runner is not None:
                runner.__dict__.pop("run", None)

    setattr(process_batch, _OURS, (process_batch, original))
    img2img.process_batch = process_batch


def unwrap() -> None:
    """Puts the host's own function back, unless somebody has wrapped ours since."""
    from modules import img2img

    present = getattr(img2img, "process_batch", None)
    ours, original = getattr(present, _OURS, (None, None))
    if original is not None and ours is present:  # a wrapper around ours may have its attributes as well
        img2img.process_batch = original


def _counted(tab: TabBatch, run: Callable[..., Any]) -> Callable[..., Any]:
    """Hosts ask the selected script once for each picture, before they make it themselves."""

    def counted(*args: Any, **kwargs: Any) -> Any:
        from modules import shared

        tab.step(str(shared.state.job))
        return run(*args, **kwargs)

    return counted


def _files(pictures: Any) -> list[str] | None:
    """The names of a folder's pictures or of uploaded ones."""
    if isinstance(pictures, (list, tuple)):
        return [str(getattr(picture, "name", picture)) for picture in pictures]
    if not isinstance(pictures, str):
        return None
    from modules import shared

    return list(shared.walk_files(pictures, allowed_extensions=_KINDS))


def _is_hidden(file: str) -> bool:
    """What macOS leaves beside pictures: the host tries to read it, our folders pass over it."""
    return Path(file).name.startswith(".")
