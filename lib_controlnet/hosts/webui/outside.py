"""What other extensions read and set of the control under way (`compat.network`)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...core.errors import HostError
from ...core.step import Pass
from ...engine.generation import UnitRun
from .films import draws_film
from .runner import Runner


class Outside:
    """Of the jobs of one runner."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.detach = runner.detach

    def runs(self) -> tuple[UnitRun, ...]:
        """The units of the job that is under way, () without one."""
        session, _, _ = self._runner.under_way()
        return () if session is None else tuple(session.runs)

    def hint(self, index: int) -> Tensor:
        """The whole hint of one of them for the pass that is sampled or about to be, (1, 3 or 4, H, W)."""
        session, p, _ = self._runner.under_way()
        if session is None:
            raise HostError("a hint was asked for while no unit acts")
        hires = bool(getattr(p, "is_hr_pass", False))
        return session.hint_for(index, Pass.hires if hires else Pass.base)

    def replace_hint(self, index: int, tensor: Tensor) -> None:
        """`tensor` (T, 3 or 4, H, W), a hint's pieces for the rows of the next U-Net calls, takes its place."""
        session, _, _ = self._runner.under_way()
        if session is not None:
            session.tile(index, tensor)

    def film_rows(self) -> int:
        """Rows of the denoiser's call under way where they are the frames of a film; 0 otherwise."""
        _, p, sampling = self._runner.under_way()
        return sampling.rows if sampling is not None and draws_film(p) else 0

    def choose_rows(self, places: Sequence[int]) -> None:
        """The next U-Net calls have these rows of it, () for all."""
        _, _, sampling = self._runner.under_way()
        if sampling is not None:
            sampling.choose(places)
