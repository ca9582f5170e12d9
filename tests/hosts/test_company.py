"""Jobs beside extensions that copy, end and nest them, replace forwards and samplers, or swallow errors.

What other extensions do is written out here as they do it; each picture is the one that the job gives alone.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engine.tiny import hook_counts

from .conftest import SIZE, Host, pixels, unit

HIRES = {"enable_hr": True, "hr_scale": 2.0, "hr_upscaler": "Latent", "denoising_strength": 0.7}
SMALL = {"width": 32, "height": 32}


@pytest.fixture(autouse=True)
def clean(host: Host) -> Iterator[None]:
    """After each test the host's U-Net is as it was, and so is its plain picture."""
    hooks, plain = hook_counts(host.unet()), pixels(host.txt2img(**SMALL))
    yield
    assert hook_counts(host.unet()) == hooks
    assert "forward" not in vars(host.unet())
    assert np.array_equal(pixels(host.txt2img(**SMALL)), plain)


@contextlib.contextmanager
def beside(host: Host, callback: str, act: Callable[..., None]) -> Iterator[None]:
    """Another extension's `callback` runs after ours: `act(p, ...)`, its exceptions swallowed as the host does."""
    runner = host.app.modules("scripts").scripts_txt2img
    own = getattr(runner, callback)

    def both(p: Any, *args: Any, **kwargs: Any) -> None:
        own(p, *args, **kwargs)
        with contextlib.suppress(Exception):
            act(p, *args, **kwargs)

    setattr(runner, callback, both)
    try:
        yield
    finally:
        delattr(runner, callback)


def pictures(processed: Any) -> list[np.ndarray]:
    return [np.asarray(image.convert("RGB")) for image in processed.images]


def same(a: Any, b: Any) -> bool:
    ours, theirs = pictures(a), pictures(b)
    return len(ours) == len(theirs) and all(np.array_equal(x, y) for x, y in zip(ours, theirs, strict=True))


# jobs on copies


def ends_and_begins_on_copies(host: Host) -> Callable[..., None]:
    """ADetailer around its own job (25.3, `postprocess_image`)."""
    results = host.app.modules("processing_result")

    def act(p: Any, *_: Any) -> None:
        p.scripts.postprocess(copy.copy(p), results.Processed(p, [], p.seed, ""))
        again = copy.copy(p)
        p.scripts.before_process(again)
        p.scripts.process(again)

    return act


def ends_the_job_itself(host: Host) -> Callable[..., None]:
    """Without the copy, and without beginning again."""
    results = host.app.modules("processing_result")
    return lambda p, *_: p.scripts.postprocess(p, results.Processed(p, [], p.seed, ""))


def runs_a_job_on_a_copy(host: Host) -> Callable[..., None]:
    processing = host.app.modules("processing")

    def act(p: Any, *_: Any) -> None:
        if getattr(p, "nested", False):
            return
        inner = copy.copy(p)
        inner.nested, inner.n_iter, inner.batch_size, inner.seed = True, 1, 1, 77
        inner.extra_generation_params = dict(p.extra_generation_params)
        processing.process_images(inner)

    return act


def runs_a_new_job(host: Host, *units: Any) -> Callable[..., None]:
    """With arguments of its own: `units` instead of the job's."""
    processing = host.app.modules("processing")

    def act(p: Any, *_: Any) -> None:
        if getattr(p, "nested", False):
            return
        inner = processing.StableDiffusionProcessingTxt2Img(
            prompt="inner", seed=5, steps=2, width=32, height=32, cfg_scale=4.0, sampler_name="Euler",
            do_not_save_samples=True, do_not_save_grid=True,
        )  # fmt: skip
        inner.nested, inner.scripts, inner.is_api = True, p.scripts, True
        inner.script_args = host.app.script_args(False, {"ControlNet": units} if units else {})
        processing.process_images(inner)

    return act


INTRUDERS = {
    "ends and begins on copies": ends_and_begins_on_copies,
    "ends the job itself": ends_the_job_itself,
    "runs a job on a copy": runs_a_job_on_a_copy,
    "runs a new job without control": runs_a_new_job,
    "runs a new job with other control": lambda host: runs_a_new_job(host, unit(model="second", weight=0.5)),
}
JOBS: dict[str, dict[str, Any]] = {
    "two batches": {"n_iter": 2},
    "two batches of two": {"n_iter": 2, "batch_size": 2},
    "hires": {"n_iter": 2, **HIRES},
    "more important": {"n_iter": 2, "control_mode": "ControlNet is more important"},
    "reference": {"n_iter": 2, "module": "reference_only", "model": "None"},
}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("intruder", INTRUDERS)
@pytest.mark.parametrize("callback", ["postprocess_image"])
def test_every_picture_of_a_job_stays_controlled(host: Host, intruder: str, job: str, callback: str):
    settings = dict(JOBS[job])
    fields = {key: settings.pop(key) for key in ("control_mode", "module", "model") if key in settings}
    settings = {**SMALL, **settings}
    alone, plain = host.txt2img(unit(**fields), **settings), host.txt2img(**settings)
    with beside(host, callback, INTRUDERS[intruder](host)):
        found = host.txt2img(unit(**fields), **settings)
    if intruder == "ends the job itself":  # and so has the maps
        alone.images = alone.images[: len(plain.images)]
    assert same(found, alone)
    assert not any(np.array_equal(a, b) for a, b in zip(pictures(found), pictures(plain), strict=False))


@pytest.mark.parametrize("callback", ["process_batch", "before_process_batch", "postprocess_batch"])
@pytest.mark.parametrize("intruder", ["runs a job on a copy", "runs a new job with other control"])
def test_a_job_within_a_job_at_other_times(host: Host, callback: str, intruder: str):
    settings = {**SMALL, "n_iter": 2}
    alone = host.txt2img(unit(), **settings)
    with beside(host, callback, INTRUDERS[intruder](host)):
        assert same(host.txt2img(unit(), **settings), alone)


@pytest.mark.parametrize("controlled", [True, False])
def test_a_job_within_a_sampling(host: Host, controlled: bool):
    """Both have what they ask for, and the outer one's hooks come back."""
    settings = {**SMALL, "steps": 4}
    alone = host.txt2img(unit(), **settings)
    inner: list[Any] = []
    kinds = {True: [unit(model="second")], False: []}
    expected = host.txt2img(*kinds[controlled], prompt="inner", seed=5, width=32, height=32)
    run = host.app.modules("processing").process_images
    calls: list[int] = []

    def nest(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            p = type("P", (), {"nested": False, "scripts": host.app.modules("scripts").scripts_txt2img})()
            processing = host.app.modules("processing")
            processing.process_images = lambda p: inner.append(run(p))
            try:
                runs_a_new_job(host, *kinds[controlled])(p)
            finally:
                processing.process_images = run

    handle = host.unet().register_forward_pre_hook(nest)
    try:
        found = host.txt2img(unit(), **settings)
    finally:
        handle.remove()
    assert same(inner[0], expected)
    assert same(found, alone)


def test_the_error_of_a_job_within_a_job_reaches_the_answer(host: Host):
    """ADetailer's own unit cannot be prepared; the host swallows what its callback raises."""
    with beside(host, "postprocess_image", runs_a_new_job(host, unit(model="no such model"))):
        with pytest.raises(Exception, match=r"unit 0.*no such model"):
            host.txt2img(unit(), **SMALL, n_iter=2)
        found = host.txt2img(unit(), **SMALL)
        with pytest.raises(Exception, match=r"unit 0.*no such model"):
            found.js()
        plain = host.txt2img(**SMALL)
        with pytest.raises(Exception, match=r"unit 0.*no such model"):
            plain.js()
    assert "no such model" in found.comments


# forwards and samplers


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    missing = object()
    own = vars(owner).get(name, missing)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def test_a_unet_whose_forward_is_replaced_stops_the_job(host: Host):
    with (
        replaced(host.unet(), "forward", lambda x, *_, **__: torch.zeros_like(x)),
        pytest.raises(Exception, match=r"unit 0, model: control was computed and the U-Net did not take it"),
    ):
        host.txt2img(unit(), **SMALL)


@pytest.mark.parametrize("kind", ["input_blocks", "middle_block", "output_blocks"])
def test_a_block_that_is_called_past_its_hooks_stops_the_job(host: Host, kind: str):
    unet = host.unet()
    found = getattr(unet, kind)
    block = found if kind == "middle_block" else found[1]
    blocks, reaches = type(unet).forward, kind != "input_blocks"  # a ControlNet adds nothing after input blocks

    def forward(*args: Any, **kwargs: Any) -> Any:
        own = block._call_impl
        block._call_impl = block.forward  # what torch's __call__ would run hooks around
        try:
            with replaced(block, "_forward_hooks", {}), replaced(block, "_forward_pre_hooks", {}):
                return blocks(unet, *args, **kwargs)
        finally:
            block._call_impl = own
            del block._call_impl

    with replaced(unet, "forward", forward):
        if not reaches:
            host.txt2img(unit(), **SMALL)
            return
        with pytest.raises(Exception, match="ControlNet unit 0"):
            host.txt2img(unit(), **SMALL)


def test_somebody_who_answers_for_the_unet_stops_the_job(host: Host):
    """An extension that replaces `apply_model` (a cache, a compiled network)."""
    model = host.app.modules("shared").sd_model
    with (
        replaced(model, "apply_model", lambda x, *_, **__: torch.zeros_like(x)),
        pytest.raises(Exception, match=r"unit 0: the U-Net was never called"),
    ):
        host.txt2img(unit(), **SMALL)


def test_somebody_who_swallows_our_error_stops_the_job_all_the_same(host: Host):
    model = host.app.modules("shared").sd_model
    own = model.apply_model

    def forgiving(x: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return own(x, *args, **kwargs)
        except Exception:  # noqa: BLE001 (that is what it does)
            return torch.zeros_like(x)

    with (
        replaced(host.unet(), "forward", lambda x, *_, **__: torch.zeros_like(x)),
        replaced(model, "apply_model", forgiving),
        pytest.raises(Exception, match=r"unit 0, model: control was computed"),
    ):
        host.txt2img(unit(), **SMALL)


@pytest.mark.parametrize("sampler", ["DDIM", "DDIM CFG++", "PLMS"])
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "never called the U-Net"),
        ({"model": "no such model"}, "no such model"),
        ({"image": "/etc/passwd"}, "unit 0, image"),
        ({"module": "no such module"}, "no such module"),
    ],
)
def test_a_sampler_that_never_calls_the_unet_stops_the_job(host: Host, sampler: str, fields: Any, words: str):
    """`int(steps * denoise) <= 1`."""
    with pytest.raises(Exception, match=words):
        host.img2img(unit(**fields), sampler_name=sampler, steps=4, denoising_strength=0.25, **SMALL)
    host.img2img(unit(weight=0.0), sampler_name=sampler, steps=4, denoising_strength=0.25, **SMALL)


def test_a_script_that_samples_by_itself_is_served(host: Host):
    """img2imgalt's way: a sampler of its own, without the announcement."""
    samplers = host.app.modules("sd_samplers")

    def sample(p: Any) -> Any:
        def own(conditioning: Any, unconditional_conditioning: Any, **_: Any) -> Any:
            sampler = samplers.create_sampler(p.sampler_name, p.sd_model)
            noise = p.rng.next()
            image = p.txt2img_image_conditioning(noise)
            return sampler.sample(p, noise, conditioning, unconditional_conditioning, image_conditioning=image)

        return own

    alone = host.txt2img(unit(), **SMALL, n_iter=2)
    with beside(host, "process", lambda p: setattr(p, "sample", sample(p))):
        assert same(host.txt2img(unit(), **SMALL, n_iter=2), alone)


def test_an_inner_job_that_samples_by_itself_is_not_taken_for_the_outer_one(host: Host):
    """Within the outer job's sampling, without control and without the announcement."""
    scripts, processing = host.app.modules("scripts"), host.app.modules("processing")
    settings = {**SMALL, "steps": 4}
    alone, expected = host.txt2img(unit(), **settings), host.txt2img(prompt="inner", seed=5, **SMALL)
    inner: list[Any] = []

    def nest(params: Any) -> None:
        if inner or params.sampling_step != 2:
            return
        inner.append(None)
        job = processing.StableDiffusionProcessingTxt2Img(
            prompt="inner", seed=5, steps=2, width=32, height=32, cfg_scale=4.0, sampler_name="Euler",
            do_not_save_samples=True, do_not_save_grid=True,
        )  # fmt: skip
        job.scripts, job.script_args = None, ()
        inner[0] = processing.process_images(job)

    callbacks = host.app.modules("script_callbacks")
    del scripts
    callbacks.on_cfg_denoised(nest)
    try:
        found = host.txt2img(unit(), **settings)
    finally:
        callbacks.remove_callbacks_for_function(nest)
    assert np.array_equal(pixels(inner[0]), pixels(expected))
    assert same(found, alone)


def test_maps_that_cannot_be_saved_are_said_and_the_pictures_come(host: Host):
    from sd_controlnet.hosts.webui import runner

    def full(*_: Any) -> None:
        raise OSError("no space left")

    with replaced(runner, "add_maps", full):
        found = host.txt2img(unit(), **SMALL)
    assert "no space left" in found.comments
    assert len(found.images) == 1
    found.js()


def test_a_script_that_samples_without_any_sampler_is_found_out(host: Host):
    def sample(p: Any) -> Any:
        return lambda **_: torch.zeros(p.batch_size, 4, p.height // 8, p.width // 8)

    with beside(host, "process", lambda p: setattr(p, "sample", sample(p))):
        found = host.txt2img(unit(), **SMALL)
    with pytest.raises(Exception, match="made without control"):
        found.js()
    assert "made without control" in found.comments


def test_an_interrupted_job_is_no_error(host: Host):
    state = host.app.modules("shared").state
    for how in ("interrupt", "skip"):
        handle = host.unet().register_forward_pre_hook(lambda *_, how=how: getattr(state, how)())
        try:
            host.txt2img(unit(guidance_start=0.9), **SMALL, steps=4).js()
        finally:
            handle.remove()


# models


@pytest.fixture
def spoilt(host: Host, files: Any) -> Iterator[Callable[[str, float], None]]:
    made = []

    def spoil(name: str, value: float) -> None:
        weights = load_file(files / "ControlNet" / "first.safetensors")
        for key in weights:
            if key.startswith(("zero_convs", "middle_block_out")):
                weights[key] = torch.full_like(weights[key], value)
        path = files / "ControlNet" / f"{name}.safetensors"
        save_file(weights, path)
        made.append(path)

    yield spoil
    for path in made:
        path.unlink()


@pytest.mark.parametrize("sampler", ["Euler", "DPM adaptive", "DDIM"])
def test_a_model_of_nan_stops_the_job_at_once(host: Host, spoilt: Any, sampler: str):
    spoilt("nan", float("nan"))
    with pytest.raises(Exception, match=r"unit 0, model: .*not numbers"):
        host.txt2img(unit(model="nan"), sampler_name=sampler, **SMALL)


def test_a_model_of_zeros_stops_the_job(host: Host, spoilt: Any):
    spoilt("zeros", 0.0)
    with pytest.raises(Exception, match=r"unit 0, model: .*nothing but zeros"):
        host.txt2img(unit(model="zeros"), **SMALL)


# what the user chose


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"guidance_start": 0.9}, "none of the 2 steps falls into its range, 0.9 to 1"),
        ({"weight": 0.0}, "its weight is 0"),
        ({"effective_region_mask": np.zeros((64, 64), np.uint8)}, "region mask is wholly black"),
        ({"image": np.zeros((64, 64, 3), np.uint8)}, "its control map is wholly black"),
    ],
)
def test_what_does_nothing_by_choice_is_said_in_comments_and_infotext(host: Host, fields: Any, words: str):
    found = host.txt2img(unit(), unit(**fields), **SMALL)
    assert words in found.comments
    assert words in found.infotexts[0]
    assert "unit 1" in found.comments
    assert "unit 0" not in found.comments
    assert words in found.js()


# hosts of another kind


class Elsewhere:
    """A checkpoint without any network that we know."""


def test_a_host_without_a_known_network_is_interrupted_and_its_answer_refused(host: Host):
    from sd_controlnet.hosts.webui import stopping  # as the host has mounted it

    shared = host.app.modules("shared")
    p = type("P", (), {"comments": {}, "extra_generation_params": {}})()
    p.comment = lambda text: p.comments.update({text: 1})
    own = stopping._modules
    try:
        stopping._modules = lambda: type("M", (), {"shared": type("S", (), {"sd_model": Elsewhere()})})
        assert stopping.arm(ValueError("no")) == []
        stopping.interrupt(p, ValueError("because"))
    finally:
        stopping._modules = own
    assert any("because" in text for text in p.comments)
    stopping.interrupt(p, ValueError("because"))
    assert shared.state.interrupted
    shared.state.interrupted = False
    processed = type("Processed", (), {"js": lambda self: "{}"})()
    stopping.refuse(p, processed, ValueError("because"))
    with pytest.raises(ValueError, match="because"):
        processed.js()


@pytest.mark.parametrize("path", ["model.diffusion_model", "forge_objects.unet.model.diffusion_model", "unet"])
def test_the_networks_of_other_hosts_are_armed(host: Host, path: str):
    from sd_controlnet.hosts.webui import stopping

    network = torch.nn.Identity()
    holder: Any = network
    for name in reversed(path.split(".")):
        holder = type("Holder", (), {name: holder})()
    own = stopping._modules
    try:
        stopping._modules = lambda: type("M", (), {"shared": type("S", (), {"sd_model": holder})})
        hooks = stopping.arm(ValueError("stopped"))
    finally:
        stopping._modules = own
    with pytest.raises(ValueError, match="stopped"):
        network(torch.zeros(1))
    for hook in hooks:
        hook.remove()
    network(torch.zeros(1))


@pytest.mark.parametrize("member", ["model", "forge_objects", "unet"])
def test_a_host_whose_attributes_raise_is_asked_all_the_same(host: Host, member: str):
    from sd_controlnet.hosts.webui import stopping

    def broken(_: Any) -> Any:
        raise RuntimeError("not loaded")

    holder = type("Holder", (), {member: property(broken)})()
    own = stopping._modules
    try:
        stopping._modules = lambda: type("M", (), {"shared": type("S", (), {"sd_model": holder})})
        assert stopping.arm(ValueError("stopped")) == []
    finally:
        stopping._modules = own


# tiles


class Tiler:
    """MultiDiffusion's way (Tiled Diffusion, multidiffusion.py): the denoiser's forward, tile by tile."""

    def __init__(self, outside: Any, size: int, together: int, handing: bool) -> None:
        self.size, self.together, self.handing = size, together, handing
        self._outside = outside
        self._wholes: list[Any] = []

    def hook(self, p: Any, *_: Any, **__: Any) -> None:
        self._wholes = [self._outside.hint(i) for i in range(len(self._outside.runs()))]
        denoiser = p.sampler.model_wrap_cfg.inner_model
        own = type(denoiser).forward

        def forward(x: Any, sigma: Any, cond: Any) -> Any:
            out = torch.zeros_like(x)
            height, width = x.shape[2:]
            boxes = [(top, left) for top in range(0, height, self.size) for left in range(0, width, self.size)]
            for at in range(0, len(boxes), self.together):
                some = boxes[at : at + self.together]
                self._swap(some, len(x))
                parts = torch.cat([x[:, :, t : t + self.size, s : s + self.size] for t, s in some])
                repeat = len(some)
                text = {k: [v[0].repeat(repeat, *[1] * (v[0].dim() - 1))] for k, v in cond.items()}
                made = own(denoiser, parts, sigma.repeat(repeat), cond=text)
                for place, (t, s) in enumerate(some):
                    out[:, :, t : t + self.size, s : s + self.size] = made[place * len(x) : (place + 1) * len(x)]
            for index, whole in enumerate(self._wholes if self.handing else []):
                self._outside.replace_hint(index, whole)
            return out

        denoiser.forward = forward

    def _swap(self, boxes: list[tuple[int, int]], rows: int) -> None:
        edge = self.size * 8
        for index, whole in enumerate(self._wholes if self.handing else []):
            pieces = [whole[:, :, t * 8 : t * 8 + edge, s * 8 : s * 8 + edge] for t, s in boxes]
            self._outside.replace_hint(index, torch.cat([torch.cat([piece] * rows) for piece in pieces]))


def outside_of(host: Host) -> Any:
    import sys

    del host
    runner = sys.modules["sd_controlnet_annotator"].extension.runner
    return sys.modules["sd_controlnet.hosts.webui.outside"].Outside(runner)


@pytest.mark.parametrize("together", [1, 2, 4])
@pytest.mark.parametrize("fields", [{}, {"control_mode": "ControlNet is more important"}], ids=["balanced", "cond"])
def test_a_tiler_that_hands_pieces_over_controls_each_tile_by_its_own(host: Host, together: int, fields: Any):
    """Where a tile's piece of the map is black, it is drawn as by a black map, whatever the others' show."""
    tiler = Tiler(outside_of(host), SIZE // 16, together, handing=True)
    left = picture_of_lines()
    right = np.ascontiguousarray(np.roll(left, SIZE // 2, axis=1))
    with beside(host, "process_before_every_sampling", tiler.hook):
        black, *lined = (latents(host, unit(image=image, **fields)) for image in (np.zeros_like(left), left, right))
    for found, sides in zip(lined, ((slice(0, 4), slice(4, 8)), (slice(4, 8), slice(0, 4))), strict=True):
        drawn, spared = (np.abs(found - black)[..., side].max() for side in sides)
        assert spared < 1e-6 < 1e-2 < drawn


def latents(host: Host, *units: Any, **settings: Any) -> np.ndarray:
    """What a job samples, (pictures, 4, h, w)."""
    seen: list[Any] = []
    with beside(host, "post_sample", lambda _p, sampled: seen.append(sampled.samples)):
        host.txt2img(*units, **settings)
    return seen[0].float().numpy()


def picture_of_lines() -> np.ndarray:
    """Lines in the left half alone."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[:, 4 : SIZE // 2 : 6] = 255
    return image


def test_a_tiler_that_hands_nothing_over_stops_the_job(host: Host):
    tiler = Tiler(outside_of(host), SIZE // 16, 1, handing=False)
    with (
        beside(host, "process_before_every_sampling", tiler.hook),
        pytest.raises(Exception, match=r"unit 0, image: .*a latent of 4x4 with a hint for 8x8"),
    ):
        host.txt2img(unit())


@pytest.mark.parametrize("together", [1, 2])
def test_windows_of_the_passes_own_size_stop_the_job(host: Host, together: int):
    """DemoFusion draws a larger latent in windows that are as large as the pass was."""

    def hook(p: Any, *_: Any, **__: Any) -> None:
        denoiser = p.sampler.model_wrap_cfg.inner_model
        own = type(denoiser).forward

        def forward(x: Any, sigma: Any, cond: Any) -> Any:
            made = x
            for _ in range(0, 4, together):
                text = {k: [v[0].repeat(together, *[1] * (v[0].dim() - 1))] for k, v in cond.items()}
                made = own(denoiser, x.repeat(together, 1, 1, 1), sigma.repeat(together), cond=text)[: len(x)]
            return made

        denoiser.forward = forward

    with beside(host, "process_before_every_sampling", hook):
        host.txt2img(unit(weight=0.0))
        with pytest.raises(Exception, match=r"unit 0, image: .*drawn in windows"):
            host.txt2img(unit())
