"""ControlNet Union against diffusers' class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetUnionModel
from safetensors.torch import save_file
from torch import Tensor

from lib_controlnet.core.errors import ModelFileError, UnitError
from lib_controlnet.core.hints import Hint
from lib_controlnet.core.modes import ControlMode, UnionType
from lib_controlnet.core.step import Pass, Step
from lib_controlnet.core.units import ControlNetUnit
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.engine.session import ControlSession
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.nets.controlnet_union import ControlNetUnion
from tests.engine.test_session import FakeGeneration, FakeSpec, added, services, unit
from tests.families.driving import settings
from tests.nets.ldm_oracle import diffusers_sizes, example, for_diffusers, randomise, with_sizes
from tests.nets.sizes import SDXL

CPU = Runtime(torch.device("cpu"), torch.float32)
KINDS = list(UnionType)[:-1]


def reference(kinds: int, layers: int = 1) -> ControlNetUnionModel:
    """diffusers' Union for the tiny SDXL with random weights; what is told of a kind weighs as much as the rest."""
    sizes = diffusers_sizes(SDXL)
    channels = SDXL.model_channels
    net = ControlNetUnionModel(
        conditioning_embedding_out_channels=(8, 16, 24, 32),
        num_control_type=kinds,
        num_trans_channel=channels,
        num_proj_channel=channels,
        num_trans_layer=layers,
        **sizes,
    )
    randomise(net, seed=4)
    return net


def loaded(folder: Path, net: ControlNetUnionModel, **changes: Tensor) -> Any:
    path = folder / "union.safetensors"
    save_file({**{key: value.contiguous() for key, value in net.state_dict().items()}, **changes}, path)
    return load_model(path, CPU, discover())


def inputs() -> dict[str, Tensor]:
    return with_sizes(example(SDXL))


def residuals(model: Any, hint: Tensor, kind: UnionType) -> tuple[Tensor, ...]:
    given = inputs()
    step = Step(given["x"], given["timesteps"], given["context"], given["y"], (True, False), (0, 0), 0.5)
    bound = model.bind([Hint(hint, None, None)], settings(union_type=kind))  # type: ignore[arg-type]
    bound.residuals(step)
    return bound.residuals(step).outputs()  # what is kept for a pass is the same again


def expected(net: ControlNetUnionModel, hint: Tensor, kind: int) -> list[Tensor]:
    flags = torch.zeros(2, net.config.num_control_type)
    flags[:, kind] = 1.0
    with torch.no_grad():
        down, middle = net(
            **for_diffusers(inputs()), controlnet_cond=[hint.expand(2, -1, -1, -1)], control_type=flags,
            control_type_idx=[kind], conditioning_scale=[1.0], return_dict=False,
        )  # fmt: skip
    return [*down, middle]


def picture(seed: int = 5) -> Tensor:
    return torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(seed))


def error(ours: Any, theirs: Any) -> float:
    assert len(ours) == len(theirs)
    assert min(float(part.std()) for part in theirs) > 0.05, "the oracle's output must not be flat"
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("kinds", "layers"), [(6, 1), (8, 1), (8, 2)])
def test_residuals_equal_diffusers_for_every_kind(tmp_path: Path, kinds: int, layers: int) -> None:
    net = reference(kinds, layers)
    model = loaded(tmp_path, net)
    model.check(BaseModel(SDXL, "tiny"))
    seen: list[Tensor] = []
    for index, kind in enumerate(KINDS[:kinds]):
        ours = residuals(model, picture(), kind)
        assert error(ours, expected(net, picture(), index)) < 1e-4
        seen.append(ours[-1])
    assert all(not torch.allclose(seen[0], other, atol=1e-3) for other in seen[1:]), "the kind must matter"


def test_an_untold_kind_has_flags_of_zero_and_no_shift(tmp_path: Path) -> None:
    """As sd-webui-controlnet: the features alone, and the embedding of a vector of zeros."""
    net = reference(6)
    ours = residuals(loaded(tmp_path, net), picture(), UnionType.unknown)
    with torch.no_grad():
        net.spatial_ch_projs.weight.zero_()
        net.spatial_ch_projs.bias.zero_()
        down, middle = net(
            **for_diffusers(inputs()), controlnet_cond=[picture().expand(2, -1, -1, -1)],
            control_type=torch.zeros(2, 6), control_type_idx=[0], conditioning_scale=[1.0], return_dict=False,
        )  # fmt: skip
    assert error(ours, [*down, middle]) < 1e-4


def test_what_is_to_be_painted_is_black(tmp_path: Path) -> None:
    net = reference(8)
    hint = picture()
    hint[:, :, 32:64] = -1.0
    black = hint.clamp(min=0.0)
    assert error(residuals(loaded(tmp_path, net), hint, UnionType.inpaint), expected(net, black, 7)) < 1e-4


def test_kinds_of_promax_are_refused_by_the_smaller_model(tmp_path: Path) -> None:
    model = loaded(tmp_path, reference(6))
    for kind in (UnionType.tile, UnionType.inpaint):
        with pytest.raises(UnitError, match="ProMax"):
            residuals(model, picture(), kind)


def test_pictures_of_a_batch_do_not_mix(tmp_path: Path) -> None:
    """Each is read as if it were alone, which the reference's batches are not."""
    net = reference(6)
    model = loaded(tmp_path, net)
    given = inputs()
    step = Step(given["x"], given["timesteps"], given["context"], given["y"], (True, True), (0, 1), 0.5)
    hints = [Hint(picture(seed), None, None) for seed in (5, 6)]  # type: ignore[arg-type]
    both = model.bind(hints, settings(union_type=UnionType.depth)).residuals(step).outputs()
    for row, seed in enumerate((5, 6)):
        alone = expected(net, picture(seed), 1)
        assert max(float((a[row] - b[row]).abs().max()) for a, b in zip(both, alone, strict=True)) < 1e-4


def test_the_file_tells_how_many_kinds_it_knows(tmp_path: Path) -> None:
    loaded(tmp_path, reference(8))
    facts = FactReader(discover()).read(tmp_path / "union.safetensors")
    assert facts.family == "controlnet_union"
    assert facts.sheet is not None
    assert facts.sheet.union_kinds == 8
    assert facts.mismatch(BaseModel(SDXL, "tiny")) == ""


def test_files_are_whole_or_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="not part of the network: surplus"):
        loaded(tmp_path, reference(6), surplus=torch.ones(1))


def shown(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (128, 128, 3), np.uint8)


def session_of(folder: Path, net: ControlNetUnionModel, *units: ControlNetUnit, **spec: Any) -> ControlSession:
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, folder / "union.safetensors")
    generation = FakeGeneration(128, 128, final_size=(128, 128), base=BaseModel(SDXL, "tiny"))
    session = ControlSession(services(folder, FakeSpec(**spec)), generation)
    session.prepare(units)
    session.begin(Pass.base, 128, 128)
    return session


def asked(index: int, kind: UnionType, **fields: Any) -> ControlNetUnit:
    return unit(index, model="union", image=shown(index), union_type=kind, **fields)


def call_of(progress: float = 0.5) -> Step:
    given = inputs()
    return Step(given["x"], given["timesteps"], given["context"], given["y"], (True, False), (0, 0), progress)


def together(net: ControlNetUnionModel, kinds: Sequence[int], scales: Sequence[float]) -> list[Tensor]:
    """diffusers with several conditions in one pass."""
    flags = torch.zeros(2, net.config.num_control_type)
    flags[:, list(kinds)] = 1.0
    pictures = [torch.from_numpy(shown(index)).permute(2, 0, 1)[None].float() / 255 for index in range(len(kinds))]
    with torch.no_grad():
        down, middle = net(
            **for_diffusers(inputs()), controlnet_cond=[each.expand(2, -1, -1, -1) for each in pictures],
            control_type=flags, control_type_idx=list(kinds), conditioning_scale=list(scales), return_dict=False,
        )  # fmt: skip
    return [*down, middle]


def ran(session: ControlSession, monkeypatch: pytest.MonkeyPatch, progress: float = 0.5) -> tuple[Any, int]:
    """What the session adds, and in how many passes of the network."""
    passes: list[int] = []
    forward = ControlNetUnion.forward
    with monkeypatch.context() as patch:
        patch.setattr(ControlNetUnion, "forward", lambda self, *args: (passes.append(1), forward(self, *args))[1])
        return added(session, call_of(progress)).outputs(), len(passes)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 0.7), (0.4, 0.8), (1.5, 0.5)])
def test_units_on_one_file_are_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: tuple[float, float]
) -> None:
    """The strongest unit's weight is that of the residuals, the others' shares those of their conditions."""
    net = reference(6)
    kinds = (UnionType.depth, UnionType.hard_edge)
    units = [asked(place, kind, weight=weights[place]) for place, kind in enumerate(kinds)]
    session = session_of(tmp_path, net, *units)
    ours, passes = ran(session, monkeypatch)
    full = max(weights)
    theirs = [full * part for part in together(net, (1, 3), [weight / full for weight in weights])]
    assert passes == 1
    assert error(ours, theirs) < 2e-4
    assert all(run.acting.in_range == run.acting.with_rows == 1 for run in session.runs)


def test_one_alone_after_the_other_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = reference(6)
    session = session_of(tmp_path, net, asked(0, UnionType.depth), asked(1, UnionType.normal, guidance_end=0.4))
    assert error(ran(session, monkeypatch, 0.2)[0], together(net, (1, 4), (1.0, 1.0))) < 2e-4
    assert error(ran(session, monkeypatch, 0.6)[0], together(net, (1,), (1.0,))) < 2e-4


@pytest.mark.parametrize(
    "fields",
    [{"region_mask": np.full((128, 128), 255, np.uint8)}, {"layer_weights": (1.0,) * 9 + (0.5,)}, {"control_mode": 2}],
    ids=["a region", "layer weights", "a mode"],
)
def test_what_differs_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: Any) -> None:
    """A region, other layer weights or rows of its own keep a unit to a pass of its own."""
    fields = {key: ControlMode.control if key == "control_mode" else value for key, value in fields.items()}
    units = [asked(0, UnionType.depth), asked(1, UnionType.normal, **fields)]
    both, passes = ran(session_of(tmp_path, reference(6), *units), monkeypatch)
    assert passes == 2
    alone = [ran(session_of(tmp_path, reference(6), each), monkeypatch)[0] for each in units]
    assert error(both, [one + other for one, other in zip(*alone, strict=True)]) < 1e-5


def test_the_preprocessor_says_what_its_map_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = reference(6)
    told = session_of(tmp_path, net, asked(0, UnionType.unknown), control_types=("Depth",))
    assert error(ran(told, monkeypatch)[0], together(net, (1,), (1.0,))) < 1e-4
    chosen = session_of(tmp_path, net, asked(0, UnionType.normal), control_types=("Depth",))
    assert error(ran(chosen, monkeypatch)[0], together(net, (4,), (1.0,))) < 1e-4
    beyond = session_of(tmp_path, net, asked(0, UnionType.unknown), control_types=("Tile",))
    assert error(ran(beyond, monkeypatch)[0], residuals_untold(net)) < 1e-4


def residuals_untold(net: ControlNetUnionModel) -> list[Tensor]:
    with torch.no_grad():
        kept = net.spatial_ch_projs.weight.clone(), net.spatial_ch_projs.bias.clone()
        net.spatial_ch_projs.weight.zero_()
        net.spatial_ch_projs.bias.zero_()
        picture_ = torch.from_numpy(shown(0)).permute(2, 0, 1)[None].float() / 255
        down, middle = net(
            **for_diffusers(inputs()), controlnet_cond=[picture_.expand(2, -1, -1, -1)],
            control_type=torch.zeros(2, 6), control_type_idx=[0], conditioning_scale=[1.0], return_dict=False,
        )  # fmt: skip
        net.spatial_ch_projs.weight.copy_(kept[0])
        net.spatial_ch_projs.bias.copy_(kept[1])
    return [*down, middle]
