"""The life of control in an A1111-type host: from `process` to `postprocess`, and after every accident between them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..core.control import Control
from ..core.errors import ControlNetError, HostError
from ..core.panel_options import BatchOption, PanelOptions
from ..core.step import Pass, RowCursor, Step
from ..core.units import ControlNetUnit
from ..engine.injection import RaisingHook, UNetHooks
from ..engine.services import Services
from ..engine.session import ControlSession
from .a1111 import A1111Generation, A1111Host, cond_repeats, latent_pixels
from .notes import forget
from .plan import PLAN, Plan, finish_batch, make_plan, repeat_seeds
from .results import add_maps, write_infotext

log = logging.getLogger("ControlNet")
JOB = "controlnet_job"
"""The attribute of the host's processing object that holds our Job."""
PLAN_ERROR = "controlnet_plan_error"
"""The attribute for what went wrong before `process`, where alone it can stop the job."""


@dataclass(eq=False)
class Job:
    """Our side of one processing object: a session, or the error that stops it."""

    session: ControlSession | None = None
    error: Exception | None = None
    plan: Plan | None = None


ReadUnits = Callable[[], Sequence[ControlNetUnit]]


class Runner:
    """Hooks live from the start of a sampling to its end; one job has them at a time.

    Hosts swallow exceptions of script callbacks, so an error found in one of them is raised from the next U-Net call.
    """

    def __init__(self, services: Services, host: A1111Host) -> None:
        self._services = services
        self._host = host
        self._attached = ExitStack()
        self._job: Job | None = None
        self._unet: nn.Module | None = None
        self._on_unet = ExitStack()
        self._step: Step | None = None
        self._cursor = RowCursor((), 0)
        self._progress = 0.0
        self._pass = Pass.base

    def before_process(self, p: Any, read_units: ReadUnits, read_options: Callable[[], PanelOptions]) -> None:
        """A job is about to count its pictures: a batch needs more, and the prompt mode may write the prompt."""
        setattr(p, PLAN_ERROR, None)
        try:
            make_plan(p, read_options(), read_units())
        except Exception as error:  # noqa: BLE001 (as in process)
            setattr(p, PLAN_ERROR, error)

    def process(self, p: Any, read_units: ReadUnits) -> None:
        """A job begins: reads its units and prepares them. Whatever an earlier job left is undone first."""
        self.detach()
        forget(p)
        job = Job(plan=getattr(p, PLAN, None))
        setattr(p, JOB, job)
        try:
            if getattr(p, PLAN_ERROR, None) is not None:
                raise p.__dict__[PLAN_ERROR]
            units = [unit for unit in read_units() if unit.enabled]
            if not units:
                return
            if job.plan is not None and job.plan.batch is not None:
                repeat_seeds(p, job.plan, self._services.setting)
                units = self._turn(job.plan, 0)
            job.session = self._prepared(p, job, units)
        except Exception as error:  # noqa: BLE001 (whatever it is must stop the job, not be swallowed by the host)
            self._fail(job, error)

    def begin_batch(self, p: Any, number: int) -> None:
        """Generation `number` of the job begins; in a batch of pictures the units may have come to the next one."""
        job: Job | None = getattr(p, JOB, None)
        if job is None or job.session is None or job.plan is None or job.plan.batch is None:
            return
        turn = number // max(job.plan.n_iter, 1)
        if turn == job.plan.turn:
            return
        try:
            job.plan.turn = turn
            job.session.close()
            job.session = self._prepared(p, job, self._turn(job.plan, turn))
        except Exception as error:  # noqa: BLE001 (as in process)
            self._fail(job, error)

    def picture_made(self, p: Any, picture: Any) -> None:
        """A picture (PIL) is ready; the first of a turn is what looping units go on from."""
        job: Job | None = getattr(p, JOB, None)
        plan = None if job is None else job.plan
        if plan is not None and plan.batch is not None and plan.last is None:
            plan.last = np.asarray(picture.convert("RGB"), np.uint8)

    @staticmethod
    def _turn(plan: Plan, number: int) -> list[ControlNetUnit]:
        if plan.batch is None:
            return []
        turn = plan.batch.turn(number, plan.last)
        plan.last = None
        plan.names.append(turn.name)
        return [unit for unit in turn.units if unit.enabled]

    def _prepared(self, p: Any, job: Job, units: Sequence[ControlNetUnit]) -> ControlSession:
        generation = A1111Generation(self._host, p)
        options = PanelOptions() if job.plan is None else job.plan.options
        generation.unit_per_image = options.batch_option is BatchOption.one_each
        session = ControlSession(self._services, generation)
        session.prepare(units)
        write_infotext(p, session)
        return session

    def begin_sampling(self, p: Any, x: Tensor, noise: Tensor | None = None) -> None:
        """A pass of the job begins: binds hints to its size and hooks the U-Net until its sampling ends.

        `noise`, from which the host is about to start, may be written over.
        """
        job: Job | None = getattr(p, JOB, None)
        self.detach()
        if job is None or (job.session is None and job.error is None):
            return
        try:
            if job.error is not None:
                raise job.error
            self._attach(job, p, x)
            if noise is not None and job.session is not None:
                noise.copy_(job.session.effects.noise(noise))
        except Exception as error:  # noqa: BLE001 (as in process)
            self._fail(job, error)
        self._until_sampled(p)

    def denoiser_step(self, params: Any) -> None:
        """A denoiser step begins (`on_cfg_denoiser`): which rows are cond, how far we are, which U-Net it is."""
        job = self._job
        if job is None or job.session is None:
            return
        try:
            self._cursor = RowCursor(cond_repeats(params), int(params.x.shape[0]))
            self._progress = params.denoiser.step / max(params.denoiser.total_steps, 1)
            unet = self._host.unet()
            if unet is not self._unet:
                self._hook(job.session, unet)
        except Exception as error:  # noqa: BLE001 (as in process)
            self._fail(job, error)

    def decoded(self, p: Any, pictures: Any) -> None:
        """A batch (B, 3, H, W) in 0..1 has been decoded; effects write over it."""
        job: Job | None = getattr(p, JOB, None)
        if job is None or job.session is None:
            return
        try:
            for place in range(len(pictures)):
                pictures[place] = job.session.effects.finished(pictures[place], place)
        except Exception as error:  # the host would swallow it, and no U-Net call is left that could raise it
            log.exception("The pictures could not be finished.")
            p.comment(f"ControlNet: the pictures are not what the units ask for: {error}")

    def finish(self, p: Any, processed: Any) -> None:
        """A job ended well or was interrupted: hands its maps over and lets go of everything."""
        self.detach()
        job: Job | None = getattr(p, JOB, None)
        setattr(p, JOB, None)
        if job is None or job.session is None:
            return
        if job.plan is not None and job.plan.batch is not None:
            finish_batch(p, job.plan, processed, self._services.setting)
        else:
            add_maps(p, processed, job.session, self._services.setting)
        job.session.close()

    def detach(self) -> None:
        """Takes every hook of ours off the host; it is then as if we had never been there."""
        self._attached.close()
        self._on_unet.close()
        self._job = self._step = None
        self._unet = None

    def _attach(self, job: Job, p: Any, x: Tensor) -> None:
        session = job.session
        if session is None:
            return
        self._pass = Pass.hires if getattr(p, "is_hr_pass", False) else Pass.base
        self._progress = 0.0
        self._cursor = RowCursor((), 0)
        session.begin(self._pass, *latent_pixels(x))
        self._job = job
        self._hook(session, self._host.unet())

    def _hook(self, session: ControlSession, unet: nn.Module) -> None:
        """Hooks `unet` in place of the one hooked before, and checks every unit's model against it."""
        self._on_unet.close()
        session.rebase(self._host.base_model(unet))
        for handle in session.effects.attach(unet):  # before ours on the same layers: they see them without control
            self._on_unet.callback(handle.remove)
        self._on_unet.callback(UNetHooks(unet, self._call, self._finished, self._conditions).remove)
        self._unet = unet

    def _call(self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None) -> Control | None:
        session = self._job.session if self._job is not None else None
        is_cond, images = self._cursor.take(x.shape[0])
        self._step = Step(x, timesteps, context, y, is_cond, images, self._progress, self._pass)
        if session is None:
            return None
        self._step = session.effects.conditioned(self._step)
        control = session.control(self._step)
        if self._unet is not None:
            session.effects.before(self._unet, self._step)
        return control

    def _conditions(self) -> tuple[Tensor, Tensor | None]:
        if self._step is None:
            raise RuntimeError("a U-Net call has no step")
        return self._step.context, self._step.y

    def _finished(self, output: Tensor) -> Tensor:
        session = self._job.session if self._job is not None else None
        return output if session is None or self._step is None else session.effects.after(self._step, output)

    def _until_sampled(self, p: Any) -> None:
        """Wraps this sampler object's `launch_sampling`, so that hooks go whichever way the sampling ends."""
        sampler = getattr(p, "sampler", None)
        launch = getattr(sampler, "launch_sampling", None)
        if sampler is None or launch is None:
            return

        def launch_then_detach(*args: Any, **kwargs: Any) -> Any:
            try:
                return launch(*args, **kwargs)
            finally:
                self.detach()

        sampler.launch_sampling = launch_then_detach
        self._attached.callback(sampler.__dict__.pop, "launch_sampling", None)

    def _fail(self, job: Job, error: Exception) -> None:
        """Remembers the error of a job and arms the U-Net to raise it."""
        if not isinstance(error, ControlNetError):
            wrapped = HostError(f"control could not be prepared: {type(error).__name__}: {error}")
            wrapped.__cause__ = error
            error = wrapped
        if job.error is None:
            log.error("%s", error, exc_info=error.__cause__)
        job.error, job.session = error, None
        hook = RaisingHook(self._any_unet(), error)
        self._attached.callback(hook.remove)

    def _any_unet(self) -> nn.Module:
        """The network whose call means sampling, of whatever kind it is."""
        from modules import shared

        return shared.sd_model.model.diffusion_model
