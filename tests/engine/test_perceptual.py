"""Where LPIPS's files are found, and what is said where they are not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import Runtime
from lib_controlnet.core.errors import ModelFileError
from lib_controlnet.engine import perceptual as module
from lib_controlnet.engine.metering import Detector, measure_picture
from lib_controlnet.engine.perceptual import perceptual
from lib_controlnet.engine.preprocess import PreprocessRunner
from lib_controlnet.measure.perceptual import Perceptual
from tests.measure import lpips_weights, maps


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has is not looked at."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(module, "_PACKAGES", {"packaged_heads": "weights/v0.1"})


def runner(*folders: Path) -> PreprocessRunner:
    registry: Any = discover(None)
    return PreprocessRunner(registry, lambda: Runtime(weight_folders=folders))


@pytest.mark.parametrize("below", ["lpips", "."])
@pytest.mark.parametrize("older", [False, True])
def test_files_in_a_folder_of_preprocessors_weights(tmp_path: Path, below: str, older: bool) -> None:
    lpips_weights.write(tmp_path / "second" / below, older=older)
    own = perceptual(runner(tmp_path / "first", tmp_path / "second"))
    assert isinstance(own, Perceptual)
    assert torch.equal(own.features[0].weight, lpips_weights.backbone()["features.0.weight"])
    assert torch.equal(own.state_dict()["lin4.model.1.weight"], lpips_weights.heads()["lin4.model.1.weight"])
    assert not any(weight.requires_grad for weight in own.parameters())


def test_files_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AlexNet where PyTorch's hub keeps it, the heads in an installed package, which is not imported for it."""
    lpips_weights.write(tmp_path / "torch" / "hub" / "checkpoints")
    (tmp_path / "torch" / "hub" / "checkpoints" / "alex.pth").unlink()
    package = tmp_path / "site" / "packaged_heads"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    told = perceptual(runner(tmp_path))
    assert isinstance(told, str)
    assert "alexnet" not in told
    torch.save(lpips_weights.heads(), package / "alex.pth")
    assert isinstance(perceptual(runner(tmp_path)), str)  # not where the package has them
    (package / "weights" / "v0.1").mkdir(parents=True)
    (package / "alex.pth").rename(package / "weights" / "v0.1" / "alex.pth")
    assert isinstance(perceptual(runner(tmp_path)), Perceptual)
    assert "packaged_heads" not in sys.modules


def test_it_is_read_once_and_goes_with_the_preprocessors_networks(tmp_path: Path) -> None:
    lpips_weights.write(tmp_path)
    once = runner(tmp_path)
    assert perceptual(once) is perceptual(once)
    before = perceptual(once)
    once.unload()
    assert perceptual(once) is not before


def test_what_is_not_there_is_named_with_its_source_and_place(tmp_path: Path) -> None:
    told = perceptual(runner(tmp_path / "weights"))
    assert isinstance(told, str)
    for part in ("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "alex.pth", "nothing is downloaded",
                 str(tmp_path / "weights" / "lpips")):  # fmt: skip
        assert part in told
    lpips_weights.write(tmp_path / "weights")
    (tmp_path / "weights" / "alex.pth").unlink()
    told = perceptual(runner(tmp_path / "weights"))
    assert isinstance(told, str)
    assert "alexnet" not in told


def test_a_file_of_something_else_is_an_error(tmp_path: Path) -> None:
    lpips_weights.write(tmp_path)
    wrong = {name: weight for name, weight in lpips_weights.heads().items() if not name.startswith("lin3")}
    torch.save({**wrong, "lin2.model.1.weight": torch.zeros(1, 2, 1, 1)}, tmp_path / "alex.pth")
    with pytest.raises(ModelFileError, match=r"lin3.*lin2") as raised:
        perceptual(runner(tmp_path))
    assert "control model" not in str(raised.value)


def test_the_meter_takes_it_for_pictures_alone(tmp_path: Path) -> None:
    lpips_weights.write(tmp_path)
    wanted = maps.smooth()
    for own, taken in ((runner(tmp_path), True), (runner(), False)):
        detectors = {name: Detector(own.entry(name).spec) for name in ("tile_resample", "canny")}
        found = measure_picture(own, maps.noisy(wanted), wanted, detectors["tile_resample"]).report()
        assert (found["lpips"] is not None) is taken
        assert ("nothing is downloaded" in found["measured"]["lpips"]) is not taken
        assert "lpips" not in measure_picture(own, wanted, wanted, detectors["canny"]).report()
