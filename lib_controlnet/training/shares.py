"""Encoding divided among processes that know nothing of each other: what each is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ..core.errors import ControlNetError
from .errors import TrainingError
from .examples import Example

What = Literal["pictures", "captions", "control maps", "maps"]
"""Latents, encoded prompts, maps as pictures, latents of maps."""
SHARE = 128
"""Pictures or prompts: few enough that a kill costs little, many enough that their file is worth one."""


@dataclass(frozen=True)
class Share:
    """What one process makes at once: of `examples`, or of `captions`. Tensors go into the file `shard`, maps below
    `folder`. `pass_over`: pictures that cannot be read are left out."""

    what: What
    folder: Path
    shard: Path
    examples: tuple[Example, ...] = ()
    captions: tuple[str, ...] = ()
    pass_over: bool = False

    def __len__(self) -> int:
        return len(self.examples) or len(self.captions)


@dataclass(frozen=True)
class Done:
    """`made`: how many there are now. `error`: problem, field, found and remedy of what ended it: whatever is raised
    elsewhere reaches us as these words."""

    made: int = 0
    error: tuple[str, str, str, str] | None = None

    @classmethod
    def failed(cls, error: ControlNetError) -> Done:
        found = "" if error.found is None else str(error.found)
        return cls(error=(error.problem, error.field or "", found, error.remedy))

    def raise_error(self) -> None:
        """Raises TrainingError where there is one."""
        if self.error is not None:
            problem, field, found, remedy = self.error
            raise TrainingError(problem, field=field or None, found=found or None, remedy=remedy)


class Helpers(Protocol):
    """Processes that make shares, in whatever order. `go_on` is called between all that takes long and may raise."""

    def __call__(self, shares: Iterable[Share], go_on: Callable[[], None]) -> Iterator[tuple[Share, Done]]: ...
