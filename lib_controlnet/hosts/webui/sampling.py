"""One sampling of a job: from the host's announcement until its sampler returns, whichever way it does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ...core.residuals import Residuals
from ...core.rows import RowTensors
from ...core.step import Pass, RowCursor, RowTeller, Step
from ...engine.injection import UNetCall
from ...engine.session import ControlSession, Held, Remark
from ..base import Hooks, Host
from .jobs import Job, carried_job
from .prompt_parts import prompt_parts

Fail = Callable[[Job, Any, Exception], Exception]
"""(job, its processing object, what happened) -> the error that the job is stopped with."""


def adds_noise(sampler: Any) -> bool:
    """Whether a sampler of the host adds new noise between its calls: functions of k-diffusion that do ask for it."""
    function = getattr(sampler, "func", None)
    return callable(function) and "noise_sampler" in inspect.signature(function).parameters


class Sampling:
    """Our hooks on the U-Net and the sampler while one pass is sampled. `close()` undoes them, twice is fine."""

    def __init__(self, host: Host, job: Job, p: Any, fail: Fail, goes_on: Callable[[Sampling], None]) -> None:
        self._host = host
        self.job = job
        self.p = p
        self._fail = fail
        self._goes_on = goes_on
        """Told of every call of its denoiser."""
        self.session: ControlSession | None = job.session
        """Kept here: whoever takes it from the job meanwhile has closed it, and that is found out."""
        self._sampler = getattr(p, "sampler", None)
        self.running = False
        """The sampler has been launched and has not returned."""
        self.ran = False
        """It was launched, or a step of it was seen."""
        self._guard = ExitStack()
        self._on_host = ExitStack()
        self._on_unet = ExitStack()
        self._on_denoiser = ExitStack()
        self._hooks: Hooks | None = None
        self._unet: nn.Module | None = None
        self._denoiser: nn.Module | None = None
        self._cursor: RowTeller = RowCursor((), 0)
        self._progress = 0.0
        self._planned = 0
        self._noisy = adds_noise(self._sampler)
        self._prompts: tuple[int, ...] = ()
        self._kept = RowTensors()
        self._pass = Pass.hires if getattr(p, "is_hr_pass", False) else Pass.base
        self._steps = 0
        self._noise: tuple[Tensor, Tensor] | None = None
        """What the host starts from, and as it was."""
        self._held: Held | None = None
        """What the session was doing when another job began to sample: it may be a copy's, with the same session."""
        self._concluded = False

    def start(self, x: Tensor, noise: Tensor | None = None) -> None:
        """Binds the units to the size of the latent `x` and hooks the U-Net. Raises ControlNetError.

        `noise`, from which the host is about to start, may be written over.
        """
        if self.job.error is not None:
            raise self.job.error
        if self.session is None:
            return
        self.session.begin(self._pass, *_pixels(x))
        self._on_host.callback(self._host.join(self.p, self.session))
        self._hook(self._host.unet())
        if noise is not None:
            self._start_from(noise)

    def _start_from(self, noise: Tensor) -> None:
        """Writes over the noise where a unit starts from another."""
        if self.session is None:
            return
        new = self.session.start_noise(noise)
        if new is not noise:
            self._noise = noise, noise.clone()
            noise.copy_(new)

    def step(self, params: Any) -> None:
        """A denoiser step begins (`on_cfg_denoiser`): which rows are cond, how far we are, which U-Net it is."""
        if self.session is None:
            return
        self.ran = self.job.sampled = True
        self._steps += 1
        self._cursor = self._host.rows(params)
        self._planned = max(params.denoiser.total_steps, 1)
        self._prompts = prompt_parts(params)
        self._progress = self._host.progress(params, self.session.timed)
        self._watch(getattr(params.denoiser, "inner_model", None))
        unet = self._host.unet()
        if unet is not self._unet:
            self._hook(unet)

    def guard(self, conclude: Callable[[Sampling], None], ended: Callable[[Sampling], None]) -> bool:
        """Wraps this sampler object's `launch_sampling`: it raises what stops the job, before and after.

        `conclude` is called when it has returned well, `ended` whichever way. False where the host has no such thing.
        """
        sampler = self._sampler
        launch = getattr(sampler, "launch_sampling", None)
        if sampler is None or launch is None:
            return False
        own = "launch_sampling"

        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.running = self.ran = self.job.sampled = True
            try:
                return self._launched(lambda: launch(*args, **kwargs), conclude)
            finally:
                self.running = False
                ended(self)

        earlier = sampler.__dict__.get(own)
        sampler.launch_sampling = guarded
        if earlier is None:
            self._guard.callback(sampler.__dict__.pop, own, None)
        else:
            self._guard.callback(setattr, sampler, own, earlier)
        return True

    def _launched(self, launch: Callable[[], Any], conclude: Callable[[Sampling], None]) -> Any:
        if self.job.error is not None:
            raise self.job.error
        try:
            result = launch()
        except Exception as error:
            if self.job.error is None or error is self.job.error:
                raise
            raise self.job.error from error
        if self.job.error is not None:
            raise self.job.error
        conclude(self)
        return result

    def conclude(self) -> list[Remark]:
        """The sampling has ended: what is to be said of the units. Raises ControlNetError, see `ControlSession.end`."""
        if self._concluded or self.session is None or self.job.error is not None:
            return []
        self._concluded = True
        remarks = self.session.end(self._steps)
        self.job.effects += self.session.taken_effects()
        return remarks

    def serves(self, p: Any, sampler: Any) -> bool:
        """Whether a step of `p` by that sampler belongs to it: others sample copies of `p` in its place, or within.

        In its place it is the same sampler object (where both tell), within it is one of the copy's own.
        """
        own = self._sampler
        return p is self.p or (carried_job(p) is self.job and (own is None or sampler is None or own is sampler))

    def suspend(self) -> None:
        """Another job samples within this one's sampling: its U-Net calls are none of ours."""
        if self._hooks is not None:
            self._hooks.paused = True
        if self.session is not None:
            self._held = self.session.hold()

    def resume(self) -> None:
        """The other job has ended."""
        if self._hooks is not None:
            self._hooks.paused = False
        if self.session is not None and self._held is not None:
            self.session.resume(self._held)
            self._held = None
        if self.session is not None and self.job.error is None and self._host.unet() is not self._unet:
            self._hook(self._host.unet())

    def close(self) -> None:
        """Takes everything of ours off the host."""
        if self.session is not None and (self.job.error is not None or not self._concluded):
            self.session.break_off()
        self._on_unet.close()
        self._on_denoiser.close()
        self._on_host.close()
        self._guard.close()
        if not self.ran and self._noise is not None:  # the host announces some samplings twice, with the same noise
            self._noise[0].copy_(self._noise[1])
        self._unet = self._denoiser = self._hooks = None

    def _hook(self, unet: nn.Module) -> None:
        """Hooks `unet` in place of the one hooked before, and checks every unit's model against it."""
        if self.session is None:
            return
        self._on_unet.close()
        self.session.rebase(self._host.base_model(unet))
        sites = self._host.sites(unet)
        self._on_unet.callback(sites.remove)
        self.session.attach(sites)  # before our other hooks on the same layers: what looks on sees them plain
        self._hooks = self._host.hooks(unet, self)
        self._on_unet.callback(self._hooks.remove)
        self._unet = unet

    def _watch(self, denoiser: Any) -> None:
        """Counts the rows of the denoiser's calls, by which a tiler's U-Net calls are told apart."""
        if denoiser is self._denoiser or not isinstance(denoiser, nn.Module):
            return
        self._on_denoiser.close()

        def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
            self._goes_on(self)
            if args:
                self._cursor.group(int(args[0].shape[0]))

        self._on_denoiser.callback(denoiser.register_forward_pre_hook(before).remove)
        self._denoiser = denoiser

    @property
    def rows(self) -> int:
        """Rows of the denoiser's call under way, 0 where it is not known."""
        return self._cursor.rows

    def choose(self, places: Sequence[int]) -> None:
        """The next U-Net calls have these rows of it, () for all."""
        self._cursor.choose(places)

    def begin(self, given: UNetCall) -> tuple[Step, Residuals | None]:
        """A U-Net call begins (PassControl). Whoever calls the U-Net may swallow what is raised, so it is kept."""
        if self.job.error is not None:
            raise self.job.error
        with self._keeping():
            rows = self._cursor.take(len(given.x), given.options)
        called = (self._cursor.rows, self._cursor.again, self._planned)
        kept, when = self._kept, self._prompts
        step = Step(
            *given.tensors, *rows, self._progress, self._pass, *called, kept, turn=self._steps, prompts=when,
            noisy=self._noisy,
        )  # fmt: skip
        if self.session is None or self._unet is None:
            return step, None
        with self._keeping():
            return self.session.begin_call(step)

    def end(self, output: Tensor, left: Sequence[str]) -> Tensor:
        """A U-Net call has made its prediction (PassControl)."""
        if self.session is None:
            return output
        with self._keeping():
            return self.session.end_call(output, left)

    def done(self) -> None:
        """A U-Net call is over, whichever way (PassControl)."""
        if self.session is not None:
            self.session.done()

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """What fails inside is the job's error."""
        try:
            yield
        except Exception as error:
            kept = self._fail(self.job, self.p, error)
            if kept is error:
                raise
            raise kept from error


def _pixels(x: Tensor) -> tuple[int, int]:
    """(width, height) in pixels of a latent `(B, C, h, w)`."""
    return int(x.shape[-1]) * 8, int(x.shape[-2]) * 8
