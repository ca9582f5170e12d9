"""The life of control in an A1111-type host: from `process` to `postprocess`, and after every accident between them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import numpy as np
from torch import Tensor

from ...core.errors import ControlNetError, HostError
from ...core.panel_options import BatchOption, PanelOptions
from ...core.units import ControlNetUnit
from ...engine.services import Services
from ...engine.session import ControlSession
from ..base import Host
from .generation import WebUIGeneration
from .jobs import Job, carried_job, new_job, own_job, stray_job
from .metering import metered
from .notes import forget, say, say_all, say_late
from .pictures import sources
from .plan import Plan, finish_batch, make_plan, repeat_seeds
from .refusal import refusal
from .results import add_maps, write_infotext
from .sampling import Sampling
from .sorting import sort_best_first
from .stopping import arm, interrupt, refuse, was_interrupted
from .studies import Studies, tell_all

log = logging.getLogger("ControlNet")

ReadUnits = Callable[[], Sequence[ControlNetUnit]]


class Runner:
    """Hooks live from the start of a sampling to its end; one sampling has them at a time.

    Hosts swallow exceptions of script callbacks, so an error found in one of them is raised from the sampler's launch
    and from every U-Net call, and where neither comes, from the host's answer (`stopping`).
    """

    def __init__(self, services: Services, host: Host) -> None:
        self._services = services
        self._host = host
        self._samplings: list[Sampling] = []
        """Those under way, the innermost last: a job may run within another's sampling."""
        self._begun: list[ref[Job]] = []
        """The jobs that have begun and not ended, the innermost last, and some that broke off; their `p` keeps them."""
        self._studies = Studies(services)
        self._armed: set[Job] = set()
        """Those of which something is armed, see `stopping`."""

    def before_process(self, p: Any, read_units: ReadUnits, read_options: Callable[[], PanelOptions]) -> None:
        """A job is about to count its pictures: a batch needs more, and the prompt mode may write the prompt."""
        earlier = carried_job(p)
        job = new_job(p)
        try:
            units = read_units()
            job.plan = make_plan(p, read_options(), units, None if earlier is None else earlier.plan)
            job.studied = self._studies.study(p, job.plan.options.study, units)
        except Exception as error:  # noqa: BLE001 (raised again in `process`, where it can stop the job)
            _keep(job, error)

    def process(self, p: Any, read_units: ReadUnits) -> None:
        """A job begins: reads its units and prepares them. Whatever an earlier job left is undone first."""
        self._close_idle()
        job = own_job(p)
        if job is None or job.begun:
            job = new_job(p)
        job.begun = True
        self._begun = [ref(one) for one in self._open()] + [ref(job)]
        forget(p)
        try:
            if job.error is not None:
                raise job.error
            job.units = [unit for unit in read_units() if unit.enabled]
            if not job.units and not _beside(job):
                return
            if job.plan is not None and job.plan.batch is not None:
                repeat_seeds(p, job.plan, self._services.setting)
                say_all(p, job.plan.notes)
                job.units = self._turn(job.plan, 0)
            self._prepare(job, p)
        except Exception as error:  # noqa: BLE001 (whatever it is must stop the job, not be swallowed by the host)
            self._fail(job, p, error)

    def begin_batch(self, p: Any, number: int) -> None:
        """Generation `number` of the job begins; in a batch of pictures the units may have come to the next one."""
        job = own_job(p)
        if job is None or job.session is None or job.plan is None or job.plan.batch is None:
            return
        turn = number // max(job.plan.n_iter, 1)
        if turn == job.plan.turn:
            return
        try:
            if turn >= job.plan.batch.length:
                raise HostError(
                    "another extension makes more pictures than the batch has",
                    field="input_mode",
                    found=f"picture {turn + 1} of {job.plan.batch.length}",
                    remedy="switch off what changes the batch count, or use the input mode simple",
                )
            job.plan.turn = turn
            job.units = self._turn(job.plan, turn)
            job.session.close()
            self._prepare(job, p)
        except Exception as error:  # noqa: BLE001 (as in process)
            self._fail(job, p, error)

    def picture_made(self, p: Any, picture: Any) -> None:
        """A picture (PIL) is ready; the first of a turn is what looping units go on from."""
        job = own_job(p)
        plan = None if job is None else job.plan
        if plan is not None and plan.batch is not None and plan.last is None:
            plan.last = np.asarray(picture.convert("RGB"), np.uint8)
        if job is not None and job.session is not None and job.error is None and not was_interrupted():
            job.meter = metered(job.meter, self._services, p, job.session, picture)

    def picture_finished(self, p: Any, picture: Any) -> None:
        """A picture (PIL) is as the host will give it; a batch's is saved now, so that no later error costs it."""
        job = own_job(p)
        plan = None if job is None else job.plan
        if job is None or plan is None or plan.results is None or job.error is not None:
            return
        try:
            plan.results.add(p, plan.turn, picture)
        except Exception as error:  # noqa: BLE001 (as in process)
            self._fail(job, p, error)

    def begin_sampling(self, p: Any, x: Tensor, noise: Tensor | None = None) -> None:
        """A pass of the job begins: binds hints to its size and hooks the U-Net until its sampling ends.

        `noise`, from which the host is about to start, may be written over.
        """
        self._close_idle()
        job = carried_job(p)
        if job is None or (job.finished and job.owner() is not p):
            job = stray_job(p)  # not ours, nor is a copy of what has ended
        if job.wanted or self._samplings:
            self._begin(job, p, x, noise)

    def denoiser_step(self, params: Any) -> None:
        """A denoiser step begins (`on_cfg_denoiser`): which rows are cond, how far we are, which U-Net it is.

        Some scripts sample without announcing it; then this is the first that we hear of it.
        """
        sampling = self._stepping(params)
        if sampling is None:
            return
        try:
            sampling.step(params)
        except Exception as error:  # noqa: BLE001 (as in process)
            self._fail(sampling.job, sampling.p, error)

    def decoded(self, p: Any, pictures: Any) -> None:
        """A batch (B, 3, H, W) in 0..1 has been decoded; controls write over it."""
        job = own_job(p)
        if job is None or job.session is None or job.error is not None:
            return
        try:
            for place in range(len(pictures)):
                pictures[place] = job.session.decoded(pictures[place], place)
        except Exception as error:  # noqa: BLE001 (as in process)
            self._fail(job, p, error)

    def finish(self, p: Any, processed: Any) -> None:
        """A job ended well or was interrupted: hands its maps over and lets go of everything."""
        self._close_idle()
        job = own_job(p)
        if job is None or job.finished:
            return
        job.finished = True
        if job.session is not None and job.error is None:
            try:
                self._hand_over(job, job.session, p, processed)
            except ControlNetError as error:
                self._fail(job, p, error)
            except Exception as error:  # the pictures are right, and the host would swallow it
                log.exception("The maps could not be handed over.")
                say_late(p, processed, f"the maps could not be shown or saved: {type(error).__name__}: {error}")
            job.session.close()
        if job.error is not None:
            refuse(p, processed, job.error)
        self._disarm(job)

    def detach(self) -> None:
        """Takes every hook of ours off the host; a sampling that runs is stopped, and its end takes the rest."""
        self._close_idle()
        for sampling in self._samplings:
            self._fail(sampling.job, sampling.p, _reloaded())

    def under_way(self) -> tuple[ControlSession | None, Any, Sampling | None]:
        """The session, the processing object and the sampling of the job that samples, or of one about to."""
        if self._samplings:
            top = self._samplings[-1]
            return top.session, top.p, top
        begun = self._open()
        return (begun[-1].session, begun[-1].owner(), None) if begun else (None, None, None)

    def _open(self) -> list[Job]:
        """The jobs that have begun and not ended."""
        return [job for weak in self._begun if (job := weak()) is not None and not job.finished]

    # the parts

    @staticmethod
    def _turn(plan: Plan, number: int) -> list[ControlNetUnit]:
        if plan.batch is None:
            return []
        units = plan.batch.turn(number, plan.last)
        plan.last = None
        return [unit for unit in units if unit.enabled]

    def _prepare(self, job: Job, p: Any) -> None:
        generation = WebUIGeneration(self._host, p)
        options = PanelOptions() if job.plan is None else job.plan.options
        generation.unit_per_image = options.batch_option is BatchOption.one_each
        job.sources = sources(p)
        job.session = ControlSession(self._services, generation)
        job.session.prepare([*job.units, *_beside(job)])
        write_infotext(p, job.session, {unit.index for unit in job.units})

    def _begin(self, job: Job, p: Any, x: Tensor, noise: Tensor | None) -> Sampling:
        """Suspends the sampling within which this one begins, if any, and starts it."""
        if self._samplings:
            self._samplings[-1].suspend()
        if job.error is None and job.session is not None and (job.session.closed or _outdated(job, p)):
            try:  # somebody ended the job in its middle, and it goes on; or gave it other pictures
                job.finished = False
                job.session.close()
                self._prepare(job, p)
            except Exception as error:  # noqa: BLE001 (as in process)
                self._fail(job, p, error)
        sampling = Sampling(self._host, job, p, self._fail, self._goes_on)
        self._samplings.append(sampling)
        guarded = sampling.guard(self._conclude, self._ended)
        try:
            sampling.start(x, noise)
        except Exception as error:  # noqa: BLE001 (as in process)
            self._fail(job, p, error, guarded)
        return sampling

    def _stepping(self, params: Any) -> Sampling | None:
        """The sampling that a denoiser step belongs to, begun now where nobody announced it; None for no job."""
        p = getattr(params.denoiser, "p", None)
        while p is not None and self._samplings and self._samplings[-1].p is not p and not self._samplings[-1].running:
            self._drop(self._samplings[-1])
        top = self._samplings[-1] if self._samplings else None
        if top is not None and (p is None or top.serves(p, getattr(params.denoiser, "sampler", None))):
            return top
        carried = None if p is None else carried_job(p)
        job = carried if carried is not None and not carried.finished else stray_job(p)
        if top is None and not job.wanted and p is not None:
            self._close_idle()  # what a job that broke off has left is nothing to one without our script
        return self._begin(job, p, params.x, None) if job.wanted or top is not None else None

    def _conclude(self, sampling: Sampling) -> None:
        """A sampling has returned: raises what stops the job, or says what units did not do."""
        if was_interrupted():
            return
        try:
            for remark in sampling.conclude():
                say(sampling.p, remark.text, unit=remark.unit)
        except Exception as error:
            raise self._fail(sampling.job, sampling.p, error, stopped=True) from error

    def _ended(self, sampling: Sampling) -> None:
        """A sampling is over, whichever way: the one around it goes on."""
        sampling.close()
        self._disarm(sampling.job)
        if sampling in self._samplings:
            self._samplings.remove(sampling)
        if not self._samplings:
            return
        outer = self._samplings[-1]
        try:
            outer.resume()
        except Exception as error:  # noqa: BLE001 (as in process)
            self._fail(outer.job, outer.p, error)

    def _drop(self, sampling: Sampling) -> None:
        """Ends a sampling whose end nobody told us."""
        if sampling.ran:
            with contextlib.suppress(ControlNetError):  # kept in its job, and raised with its answer
                self._conclude(sampling)
        self._ended(sampling)

    def _goes_on(self, sampling: Sampling) -> None:
        """The denoiser of a sampling is called: what began within it is over, told or not."""
        while sampling in self._samplings and self._samplings[-1] is not sampling and not self._samplings[-1].running:
            self._drop(self._samplings[-1])

    def _close_idle(self) -> None:
        """Ends samplings whose end nobody told us, and disarms what an earlier job left."""
        for sampling in [one for one in reversed(self._samplings) if not one.running]:
            self._drop(sampling)
        if not self._samplings:
            self._disarm(*self._armed)

    def _disarm(self, *jobs: Job) -> None:
        for job in jobs:
            job.armed.close()
            self._armed.discard(job)

    def _hand_over(self, job: Job, session: ControlSession, p: Any, processed: Any) -> None:
        if not job.sampled and processed.images and not was_interrupted():
            raise HostError(
                "the pictures were made without control: no sampling was announced",
                found=f"{len(processed.images)} pictures",
                remedy="switch off the script or extension that samples by itself, or disable the units",
            )
        batch = job.plan is not None and job.plan.batch is not None
        if job.plan is not None and batch:
            finish_batch(p, job.plan, processed, self._services.setting, job.meter)
        sort_best_first(p, processed, job.meter)
        if not batch:
            add_maps(p, processed, session, self._services.setting)
        tell_all(self._services, session, job.meter, job.effects, job.studied, p, processed)

    def _fail(self, job: Job, p: Any, error: Exception, stopped: bool = False) -> ControlNetError:
        """Remembers the error of a job and arms everything that can stop it; the first one counts.

        `stopped`: the job's sampler raises it anyway.
        """
        kept = _keep(job, error)
        if not job.told:
            job.told = True
            log.error("%s", str(kept), exc_info=kept.__cause__ if kept.status_code >= 500 else None)
        for other in self._open():  # whoever runs a job within a job may swallow its end
            _keep(other, kept)
            other.told = True
        hooks = arm(kept)
        self._armed.add(job)
        for hook in hooks:
            job.armed.callback(hook.remove)
        if not hooks and not stopped:
            interrupt(p, kept)
        return kept


def _beside(job: Job) -> Sequence[ControlNetUnit]:
    """What acts for all units together."""
    if job.plan is None:
        return ()
    return job.plan.options.units(1 + max((unit.index for unit in job.units), default=-1))


def _keep(job: Job, error: Exception) -> ControlNetError:
    """The job's first error."""
    if job.error is None:
        job.error = refusal(error)
    return job.error


def _outdated(job: Job, p: Any) -> bool:
    """Whether another extension has given the job other pictures since its units were prepared with the first."""
    if own_job(p) is not job or all(unit.image is not None for unit in job.units):
        return False
    now = sources(p)
    return len(now) != len(job.sources) or any(a is not b for a, b in zip(now, job.sources, strict=True))


def _reloaded() -> ControlNetError:
    return HostError(
        "the host has dropped its scripts in the middle of the sampling",
        found="its page was loaded anew (Reload UI)",
        remedy="generate again",
    )
