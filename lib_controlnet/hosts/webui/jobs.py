"""One job of the host as we keep it: whose it is, what was decided for it, and what acts in it.

Other extensions copy the host's processing object in the middle of a job (ADetailer ends and begins jobs on copies),
and run whole jobs on copies of it. A copy carries the Job along, but does not own it: what happens to a copy is nothing
to the job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from ...core.errors import ControlNetError
from ...core.units import ControlNetUnit
from ...engine.effect import PassEffect
from ...engine.session import ControlSession
from .metering import JobMeter
from .plan import Plan
from .studies import Studied

_JOB = "controlnet_job"
"""The one attribute of ours on the host's processing object."""


@dataclass(eq=False)
class Job:
    """Our side of one run of the host's `process_images`, owned by the processing object that it began with."""

    owner: Callable[[], Any]
    """The processing object, None once it is gone."""
    plan: Plan | None = None
    units: Sequence[ControlNetUnit] = ()
    """The enabled units, in a batch of pictures those of its present turn."""
    sources: Sequence[Any] = ()
    """The pictures of img2img that the session was prepared with."""
    session: ControlSession | None = None
    """What acts; None without units."""
    error: ControlNetError | None = None
    """Why control cannot reach the pictures: the first reason."""
    told: bool = False
    """`error` is in the log."""
    begun: bool = False
    """`process` has been called for it."""
    finished: bool = False
    """`postprocess` has been called for it."""
    sampled: bool = False
    """A sampling of it has run."""
    meter: JobMeter | None = None
    """How well its pictures follow their maps, where that is measured."""
    effects: list[PassEffect] = field(default_factory=list[PassEffect])
    """What its units did in the passes that have ended."""
    studied: Studied | None = None
    """What it has found out before it made its pictures."""
    armed: ExitStack = field(default_factory=ExitStack)
    """Takes the hooks off that raise `error`."""

    @property
    def wanted(self) -> bool:
        """Control was asked for."""
        return self.error is not None or self.session is not None

    def __deepcopy__(self, memo: dict[int, Any]) -> Job:
        """A deep copy of the processing object carries the same job, as a shallow one does."""
        return self


def new_job(p: Any) -> Job:
    """A job that begins on `p`."""
    job = stray_job(p)
    setattr(p, _JOB, job)
    return job


def stray_job(p: Any) -> Job:
    """A job of ours for a `p` that asks nothing of us; it is not told."""
    try:
        return Job(ref(p))
    except TypeError:  # an object without weak references
        return Job(lambda: p)


def carried_job(p: Any) -> Job | None:
    """The job that `p` has with it, as its owner or as a copy of it."""
    return getattr(p, _JOB, None)


def own_job(p: Any) -> Job | None:
    """The job that began on `p`."""
    job = carried_job(p)
    return job if job is not None and job.owner() is p else None
