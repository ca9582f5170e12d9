"""Every kind that can be trained: its gradients against an independent implementation, and its files in our own loader
and diffusers'."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from diffusers import ControlNetXSAdapter, T2IAdapter
from torch import Tensor, nn
from torch.func import functional_call

from lib_controlnet.core.checkpoint import Checkpoint
from lib_controlnet.core.step import Step
from lib_controlnet.families.base import Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.loading.canonical import canonical
from lib_controlnet.loading.xs import xs_names
from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.nets.unet import UNetModel
from lib_controlnet.training import kinds
from lib_controlnet.training.config import ControlOptions, TrainConfig, config_from
from lib_controlnet.training.controlled import ControlledUNet
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.kinds import Control, kind_named
from lib_controlnet.training.kinds.controlnet_xs import diffusers_xs
from lib_controlnet.training.kinds.low_rank import Changed, unchanged
from tests.families import lllite_files
from tests.families.driving import hooked, settings
from tests.families.test_t2i_adapter import picture
from tests.nets.ldm_oracle import (
    diffusers_controlnet,
    diffusers_unet,
    example,
    for_diffusers,
    randomise,
    to_diffusers,
    with_sizes,
)
from tests.nets.lllite_reference import ReferenceModule
from tests.nets.sizes import SD1, SDXL
from tests.nets.xs_reference import controlled as their_xs

SMALL = replace(SD1, channel_mult=(1, 2), num_res_blocks=1, transformer_depth=(1, 0))
SMALL_XL = replace(SDXL, num_res_blocks=1, transformer_depth=(0, 1, 1), middle_depth=1)
SIZE = (128, 64)
"""(width, height) in pixels."""


def config_of(kind: str, start: Path | None = None, **options: Any) -> TrainConfig:
    base = {"checkpoint": "none", "hint_widths": [8, 8, 8, 16]} | ({"start": start} if start else {})
    return config_from(
        {
            "base": base,
            "control": {"kind": kind, "rank": 4, "ratio": 0.5, "condition_channels": 16, **options},
            "train": {"steps": 1},
            "output": {"folder": "out", "name": "made"},
        },
        Path(),
    )


def unet_of(config: UNetConfig) -> UNetModel:
    unet = UNetModel(config)
    randomise(unet, seed=2)
    return unet


def made(unet: UNetModel, kind: str, **options: Any) -> Control:
    """Random in every weight that is trained, also those that start at zero, and a number in half precision."""
    control = kind_named(kind).new(unet, config_of(kind, **options))
    chance = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in control.trained():
            noise = torch.randn(weight.shape, generator=chance)
            weight.copy_(0.3 * noise + 0.5 if weight.ndim == 1 else noise * (0.5 / weight[0].numel()) ** 0.5)
            weight.copy_(weight.half().float())
    return control


def merged(control: Control, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A whole ControlNet's weights: each changed layer's with the product of its factors."""
    own = {name: trained.get(name, value) for name, value in control.net.named_parameters()}
    whole: dict[str, Tensor] = {}
    for name, value in own.items():
        if name.endswith((".up", ".down")):
            continue
        layer = name.removesuffix(".base.weight")
        if layer != name and f"{layer}.up" in own:
            value = value + (own[f"{layer}.up"].flatten(1) @ own[f"{layer}.down"].flatten(1)).reshape(value.shape)
        whole[unchanged(name)] = value
    return whole


def their_residuals(unet: UNetModel, whole: dict[str, Tensor], inputs: dict[str, Tensor], **given: Tensor) -> Tensor:
    """The prediction of diffusers' U-Net under diffusers' ControlNet; `given`: instead of the noisy latent."""
    widths = (8, 8, 8, 16)
    config = ControlNetConfig(unet.config, hint_widths=widths)
    net = diffusers_controlnet(config, {key: value.detach() for key, value in whole.items()})
    named = for_diffusers(inputs)
    down, middle = functional_call(net, to_diffusers(config, whole), (), {**named, **given, "return_dict": False})
    oracle = diffusers_unet(unet.config, unet.state_dict())
    return oracle(
        **named, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample  # fmt: skip


def control_lora(unet: UNetModel, control: Control, inputs: dict[str, Tensor], hints: Tensor) -> Any:
    trained = leaves(control)
    return trained, their_residuals(unet, merged(control, trained), inputs, controlnet_cond=hints)


def ctrlora(unet: UNetModel, control: Control, inputs: dict[str, Tensor], hints: Tensor) -> Any:
    """diffusers' network reads the map's latent as its sample, and an encoder of pixels adds nothing."""
    trained = leaves(control)
    silent = ControlNet(ControlNetConfig(unet.config, hint_widths=(8, 8, 8, 16))).state_dict()
    blind = {key: value for key, value in silent.items() if key.startswith("input_hint_block.")}
    pixels = torch.zeros(2, 3, 8 * hints.shape[2], 8 * hints.shape[3])
    whole = blind | merged(control, trained)
    return trained, their_residuals(unet, whole, inputs, sample=hints, controlnet_cond=pixels)


def lllite(unet: UNetModel, control: Control, inputs: dict[str, Tensor], hints: Tensor) -> Any:
    """kohya's modules before the U-Net's layers."""
    modules: dict[str, ReferenceModule] = {}
    layers = {name.replace(".", "_"): name for name, _ in unet.named_modules()}
    for place in control.net.places:
        sizes = control.net.at(place).sizes
        module = ReferenceModule(sizes.inputs, sizes.hidden, sizes.embedding, sizes.depth, sizes.conv)
        module.load_state_dict(control.net.at(place).state_dict())
        modules[layers[place.removeprefix("lllite_unet_")]] = module
    trained = {
        f"lllite_unet_{name.replace('.', '_')}.{key}": weight
        for name, module in modules.items()
        for key, weight in module.named_parameters()
    }
    with lllite_files.acting(unet, modules, hints, 1.0):
        return trained, unet(**inputs)


def t2i_adapter(unet: UNetModel, control: Control, inputs: dict[str, Tensor], hints: Tensor) -> Any:
    config = control.net.config
    net = T2IAdapter(
        in_channels=config.hint_channels, channels=list(config.channels[: 3 if config.light else 4]),
        num_res_blocks=len(config.blocks[0]),
        downscale_factor=config.unshuffle,
        adapter_type="light_adapter" if config.light else f"full_adapter{'_xl' * (config.unshuffle == 16)}",
    )  # fmt: skip
    names = dict(zip(canonical(net.state_dict()), net.state_dict(), strict=True))
    own = control.net.state_dict()
    net.load_state_dict({names[key]: value.reshape(net.state_dict()[names[key]].shape) for key, value in own.items()})
    if config.hint_channels == 1:
        hints = 0.299 * hints[:, :1] + 0.587 * hints[:, 1:2] + 0.114 * hints[:, 2:]
    weights = dict(net.named_parameters())
    oracle = diffusers_unet(unet.config, unet.state_dict())
    features = list(net(hints))
    answer = oracle(**for_diffusers(inputs), down_intrablock_additional_residuals=features).sample
    return {ours: weights[theirs] for ours, theirs in names.items()}, answer


def controlnet_xs(unet: UNetModel, control: Control, inputs: dict[str, Tensor], hints: Tensor) -> Any:
    outline = diffusers_xs(unet.config, control.net.config)
    names = xs_names({key: key for key in outline.state_dict()})
    assert names is not None
    shapes = {key: value.shape for key, value in outline.state_dict().items()}
    net = outline.to_empty(device="cpu")
    net.load_state_dict({names[k]: v.reshape(shapes[names[k]]) for k, v in control.net.state_dict().items()})
    both = their_xs(unet.config, unet.state_dict(), net)
    both.requires_grad_(True)
    answer = both(**for_diffusers(inputs), controlnet_cond=hints).sample
    found = {weight.detach().numpy().tobytes(): weight for weight in both.parameters()}
    return {name: found[w.detach().numpy().tobytes()] for name, w in control.net.named_parameters()}, answer


def leaves(control: Control) -> dict[str, Tensor]:
    return {name: weight.detach().clone().requires_grad_(True) for name, weight in control.named_trained()}


Reference = Callable[[UNetModel, Control, dict[str, Tensor], Tensor], Any]
CASES: list[tuple[Reference, UNetConfig, dict[str, Any]]] = [
    (control_lora, SMALL, {}),
    (control_lora, SMALL_XL, {"rank": 2}),
    (lllite, SMALL, {}),
    (lllite, SMALL, {"layers": "all", "rank": 6}),
    (lllite, SMALL_XL, {}),
    (t2i_adapter, SD1, {}),
    (t2i_adapter, SD1, {"light": True, "gray": True}),
    (t2i_adapter, SMALL_XL, {}),
    (controlnet_xs, SD1, {}),
    (ctrlora, SMALL, {}),
]
NAMES = [f"{case[0].__name__}-{index}" for index, case in enumerate(CASES)]


def hints_for(control: Control, size: tuple[int, int] = SIZE) -> Tensor:
    chance = torch.Generator().manual_seed(4)
    width, height = size
    shape = (2, 4, height // 8, width // 8) if control.latent_hints else (2, 3, height, width)
    return torch.rand(*shape, generator=chance)


def inputs_of(config: UNetConfig) -> dict[str, Tensor]:
    return with_sizes(example(config, size=(SIZE[1] // 8, SIZE[0] // 8)))


@pytest.mark.parametrize(("reference", "config", "options"), CASES, ids=NAMES)
def test_gradients_are_those_of_an_independent_implementation(
    reference: Reference, config: UNetConfig, options: dict[str, Any]
) -> None:
    """And with activations computed again they are the same; the U-Net gets none and is as it was."""
    unet = unet_of(config)
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    control, inputs = made(unet, reference.__name__, **options), inputs_of(config)
    hints, target = hints_for(control), torch.randn(2, 4, *inputs["x"].shape[2:], generator=torch.manual_seed(6))
    trained, answer = reference(unet, control, inputs, hints)
    wanted = torch.autograd.grad((answer - target).square().mean(), list(trained.values()))
    model = ControlledUNet(unet, control)
    with torch.no_grad():
        assert (answer - unet(**inputs)).abs().max() > 0.01
    for checkpointing in (False, True):
        if checkpointing:
            unet.use_checkpointing()
            control.use_checkpointing()
        model.zero_grad(set_to_none=True)
        x, times, context = inputs["x"], inputs["timesteps"], inputs["context"]
        (model(x, times, context, hints, inputs.get("y")) - target).square().mean().backward()
        ours = {name: weight.grad for name, weight in control.named_trained()}
        assert set(ours) == set(trained)
        for name, theirs in zip(trained, wanted, strict=True):
            own = ours[name]
            assert own is not None, name
            assert theirs.any(), name
            assert (own.reshape(theirs.shape) - theirs).abs().max() <= 2e-4 * theirs.abs().max() + 1e-8, name
    trainable = {id(weight) for weight in control.trained()}
    assert all(w.grad is None for w in unet.parameters() if id(w) not in trainable)
    assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())


def encode(pixels: Tensor) -> Tensor:
    """Stands for the auto-encoder, pixels in 0..1."""
    small = nn.functional.avg_pool2d(pixels * 2 - 1, 8)
    return torch.cat([small, small.mean(1, keepdim=True)], dim=1)


def checkpoint() -> Checkpoint:
    return Checkpoint(torch.linspace(0.99, 0.01, 1000), False, encode, 1)


@pytest.mark.parametrize(("reference", "config", "options"), CASES, ids=NAMES)
@torch.no_grad()
def test_the_file_acts_in_our_loader_as_it_was_trained(
    tmp_path: Path, reference: Reference, config: UNetConfig, options: dict[str, Any]
) -> None:
    kind, unet = kind_named(reference.__name__), unet_of(config)
    control = made(unet, kind.id, **options)
    files = kind.formats["v1.1"](control, tmp_path / "made", {})
    runtime = Runtime(torch.device("cpu"), torch.float32, base_weights=unet.state_dict)
    model: Any = load_model(files["model"], runtime, discover())
    inputs, hint = inputs_of(config), picture(*SIZE)
    step = Step(inputs["x"], inputs["timesteps"], inputs["context"], inputs.get("y"), (True, False), (0, 0), 0.5)
    bound = model.bind([hint], settings(config, checkpoint=checkpoint))
    outputs = getattr(model, "outputs", 0)
    theirs = hooked(unet, step, bound, outputs=outputs, size=SIZE, weight=0.7)
    hints = encode((hint.image + 1) / 2) if control.latent_hints else hint.image
    features = control.encode(hints.expand(2, -1, -1, -1))
    ours = control.predict(unet, inputs["x"], inputs["timesteps"], inputs["context"], features, inputs.get("y"), 0.7)
    plain = unet(**inputs)
    assert (ours - plain).abs().max() > 0.01
    assert (ours - theirs).abs().max() <= 1e-3 * ours.abs().max()


@pytest.mark.parametrize(("reference", "config", "options"), CASES, ids=NAMES)
def test_a_training_goes_on_from_its_file(
    tmp_path: Path, reference: Reference, config: UNetConfig, options: dict[str, Any]
) -> None:
    """`base.start` brings back what was written, of its own sizes; a CtrLoRA's start is its base."""
    kind, unet = kind_named(reference.__name__), unet_of(config)
    control = made(unet, kind.id, **options)
    files = kind.formats["v1.1"](control, tmp_path / "made", {})
    start = files.get("ctrlora_base", files["model"])
    again = kind.new(unet, config_of(kind.id, start, rank=4 if kind.id == "ctrlora" else 3))
    if "ctrlora_base" in files:
        assert again.net.time_embed[0].base.weight.half().equal(control.net.time_embed[0].base.weight.half())
        return
    found, wanted = again.weights(), control.weights()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key].half(), value.half()) for key, value in wanted.items())


def test_diffusers_reads_its_folders(tmp_path: Path) -> None:
    for name, config, options, theirs in (
        ("t2i_adapter", SD1, {}, T2IAdapter),
        ("t2i_adapter", SD1, {"light": True}, T2IAdapter),
        ("t2i_adapter", SMALL_XL, {"gray": True}, T2IAdapter),
        ("controlnet_xs", SD1, {}, ControlNetXSAdapter),
    ):
        with torch.device("meta"):
            control = kind_named(name).new(UNetModel(config), config_of(name, **options))
        control.to_empty(device="cpu")
        randomise(control, seed=5)
        folder = kind_named(name).formats["diffusers"](control, tmp_path / "made", {})["diffusers"]
        loaded: Any = theirs.from_pretrained(str(folder))
        total = sum(float(value.double().sum()) for value in loaded.state_dict().values())
        assert total == pytest.approx(sum(float(v.half().double().sum()) for v in control.weights().values()), rel=1e-6)


def test_a_control_lora_holds_no_weights_of_the_unet_twice() -> None:
    unet = unet_of(SMALL)
    control = kind_named("control_lora").new(unet, config_of("control_lora"))
    theirs = {id(weight) for weight in unet.parameters()}
    changed = [module for module in control.net.modules() if isinstance(module, Changed)]
    assert len(changed) > 10
    assert all(id(module.base.weight) in theirs for module in changed)
    assert not {id(weight) for weight in control.trained()} & theirs


def test_each_kind_is_a_module_and_has_a_file_format() -> None:
    names = get_args(get_type_hints(ControlOptions)["kind"])
    found = {
        info.name
        for info in pkgutil.iter_modules(kinds.__path__)
        if hasattr(__import__(f"{kinds.__name__}.{info.name}", fromlist=["x"]), "KIND")
    }
    assert found == set(names)
    for name in names:
        assert kind_named(name).id == name
        assert "v1.1" in kind_named(name).formats


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        ("t2i_adapter", SMALL, "a U-Net of 2 levels"),
        ("ctrlora", SMALL_XL, "SD 1.x and 2.x"),
        ("lllite", replace(SMALL, transformer_depth=(0, 0), middle_depth=-1), "no attention"),
    ],
)
def test_what_a_checkpoint_cannot_have_is_refused(kind: str, config: UNetConfig, words: str) -> None:
    with torch.device("meta"), pytest.raises(TrainingError, match=words):
        kind_named(kind).new(UNetModel(config), config_of(kind))


@pytest.mark.parametrize("kind", get_args(get_type_hints(ControlOptions)["kind"]))
def test_a_file_of_another_kind_is_refused(tmp_path: Path, kind: str) -> None:
    unet = unet_of(SD1)
    other = "lllite" if kind != "lllite" else "control_lora"
    files = kind_named(other).formats["v1.1"](made(unet, other), tmp_path / "made", {})
    with pytest.raises((TrainingError, Exception), match="made"):
        kind_named(kind).new(unet, config_of(kind, files["model"]))


def test_only_a_controlnet_has_a_middle_of_its_own() -> None:
    tables: dict[str, Any] = {
        "base": {"checkpoint": "none"},
        "control": {"kind": "lllite"},
        "train": {"steps": 1, "only_mid_control": True},
        "output": {"folder": "out", "name": "made"},
    }
    with pytest.raises(TrainingError, match="only_mid_control"):
        config_from(tables, Path())


def test_hints_are_of_one_kind() -> None:
    """What the data set must give, is what the control says."""
    for name in get_args(get_type_hints(ControlOptions)["kind"]):
        with torch.device("meta"):
            control = kind_named(name).new(UNetModel(SD1), config_of(name))
        assert control.latent_hints == kind_named(name).latent_hints
