"""Files that carry code run by their sha256 alone, whatever is in them."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from annotator.sd_controlnet import networks
from annotator.sd_controlnet.entries.densepose import WEIGHTS
from annotator.sd_controlnet.entries.densepose.detector import DensePose
from annotator.sd_controlnet.onnx_files import refuse_external_data
from annotator.sd_controlnet.spec import AnnotatorError, Runtime, WeightFile
from annotator.sd_controlnet.trust import run_trusted, trusted_hashes

from .makers import onnx_files

PICTURE = np.zeros((64, 64, 3), np.uint8)


class Nobody(nn.Module):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.zeros(0, 4), torch.zeros(0, 2, 4, 4), torch.zeros(0, 25, 4, 4)


class ReadsFiles(nn.Module):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        read = torch.from_file("/etc/hostname", False, 1)
        return torch.zeros(0, 4) + read, torch.zeros(0, 2, 4, 4), torch.zeros(0, 25, 4, 4)


def script(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


def renamed(content: bytes, rename: Any, twice: bool = False) -> bytes:
    """The archive with other names of its entries; `twice`: the code is there a second time, without harm."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new:
        for info in old.infolist():
            new.writestr(rename(info.filename), old.read(info))
            if twice and info.filename.endswith(".py"):
                with pytest.warns(UserWarning, match="Duplicate name"):
                    new.writestr(rename(info.filename), b"# nothing here")
    return buffer.getvalue()


BOMB = script(ReadsFiles())
ATTACKS = {
    "as it is": BOMB,
    "upper-case folder": renamed(BOMB, lambda name: name.replace("/code/", "/CODE/")),
    "upper-case ending": renamed(BOMB, lambda name: name.replace(".py", ".PY")),
    "double entries": renamed(BOMB, lambda name: name, twice=True),
    "harmless, but unknown": script(Nobody()),
}


def runtime(folder: Path, content: bytes, *trusted: str) -> Runtime:
    (folder / WEIGHTS.folder).mkdir(exist_ok=True)
    (folder / WEIGHTS.folder / WEIGHTS.name).write_bytes(content)
    return Runtime(weight_folders=(folder,), trusted=lambda: frozenset(trusted))


@pytest.fixture(autouse=True)
def with_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What TorchScript's reader was given."""
    seen: list[bytes] = []
    original = torch.jit.load

    def load(content: Any, *args: Any, **options: Any) -> Any:
        seen.append(content.getvalue())
        return original(content, *args, **options)

    monkeypatch.setattr(torch.jit, "load", load)
    return seen


@pytest.mark.parametrize("name", ATTACKS)
def test_what_nobody_trusts_is_not_even_opened(name: str, loads: list[bytes], tmp_path: Path) -> None:
    content = ATTACKS[name]
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(AnnotatorError) as refusal:
        DensePose(runtime(tmp_path, content, "0" * 64, digest[:63]), WEIGHTS, True)(PICTURE, resolution=64)
    for said in (WEIGHTS.name, digest, "Settings > ControlNet > Trusted files"):
        assert said in str(refusal.value)
    assert not loads


def test_the_trusted_file_runs(loads: list[bytes], tmp_path: Path) -> None:
    content = script(Nobody())
    digest = hashlib.sha256(content).hexdigest()
    DensePose(runtime(tmp_path, content, digest), WEIGHTS, True)(PICTURE, resolution=64)
    assert [hashlib.sha256(seen).hexdigest() for seen in loads] == [digest]


def test_a_file_that_changes_after_the_check_is_not_the_one_that_runs(
    loads: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every moment after the bytes are read, the file on the disk is another."""
    content = script(Nobody())
    lent = runtime(tmp_path, content, hashlib.sha256(content).hexdigest())
    read = Path.read_bytes

    def swapped(path: Path) -> bytes:
        found = read(path)
        path.write_bytes(BOMB)
        return found

    monkeypatch.setattr(Path, "read_bytes", swapped)
    DensePose(lent, WEIGHTS, True)(PICTURE, resolution=64)
    assert loads == [content]


def test_trust_that_is_taken_back_stops_a_loaded_network(tmp_path: Path) -> None:
    content = script(Nobody())
    trusted = {hashlib.sha256(content).hexdigest()}
    lent = Runtime(weight_folders=(tmp_path,), trusted=lambda: frozenset(trusted))
    runtime(tmp_path, content)
    detect = DensePose(lent, WEIGHTS, True)
    detect(PICTURE, resolution=64)
    trusted.clear()
    with pytest.raises(AnnotatorError, match="nobody has said"):
        detect(PICTURE, resolution=64)


@pytest.mark.parametrize(("stated", "runs"), [(64, True), (63, False), (8, False), (0, False)])
def test_a_stated_hash_counts_in_full_only(stated: int, runs: bool, tmp_path: Path) -> None:
    content = script(Nobody())
    digest = hashlib.sha256(content).hexdigest()
    weight = WeightFile(name=WEIGHTS.name, folder="densepose", size=1, licence="", sha256=digest[:stated].upper())
    lent = runtime(tmp_path, content)
    if runs:
        assert run_trusted(lent, "key", weight, lambda file: torch.jit.load(file)) is not None
        return
    with pytest.raises(AnnotatorError, match=digest):
        run_trusted(lent, "key", weight, lambda file: torch.jit.load(file))


def test_the_list_is_lines_that_begin_with_a_hash() -> None:
    one, two = "a" * 64, "0123456789abcdef" * 4
    text = f"  {one.upper()} densepose, from LayerNorm\r\n# remark\n\n{two}\nshort {one}\n{one}f"
    assert trusted_hashes(text) == {one, two}
    assert trusted_hashes(None) == trusted_hashes("") == trusted_hashes(7) == frozenset()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".torchscript"])
def test_no_reader_of_weights_hands_a_program_to_torchscript(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch before 2.6 does so where weights alone are asked for (CVE-2025-32434): `torch.load` is not reached."""
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(BOMB)
    monkeypatch.setattr(networks, "torch_load", lambda *_args, **_options: pytest.fail("torch.load was reached"))
    with pytest.raises(AnnotatorError, match="holds code"):
        networks.read_weights(file)


def test_weights_are_still_read(tmp_path: Path) -> None:
    for new in (True, False):
        file = tmp_path / f"weights{new}.pth"
        torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=new)
        assert torch.equal(networks.read_weights(file)["a"], torch.ones(2))


class TestOnnx:
    def test_a_whole_file_passes(self, tmp_path: Path) -> None:
        for name, make in onnx_files.MAKERS.items():
            make(tmp_path / name)
            refuse_external_data(tmp_path / name)

    @pytest.mark.parametrize(
        "place",
        [
            (7, 5),  # a weight
            (7, 1, 5, 5),  # a constant's value
            (7, 1, 5, 10),  # among several
            (7, 1, 5, 6, 5),  # in a branch
            (7, 1, 5, 11, 1, 5, 5),  # deeper
            (7, 15, 1),  # sparse
            (25, 7, 5, 5),  # in a function
            (20, 1, 5),  # in what trains it
        ],
    )
    @pytest.mark.parametrize("mark", [b"\x70\x01", b"\x6a\x04\x0a\x02ab"])  # data_location: EXTERNAL; external_data
    def test_weights_in_other_files_are_refused(self, place: tuple[int, ...], mark: bytes, tmp_path: Path) -> None:
        message = b"\x08\x01" + mark
        for field in reversed(place):
            key = field << 3 | 2
            head = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
            message = head + bytes([len(message)]) + message
        file = tmp_path / "network.onnx"
        file.write_bytes(b"\x08\x08" + message)
        with pytest.raises(AnnotatorError, match="other files"):
            refuse_external_data(file)

    @pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x3a\x7f\x00", b"\x03\x00", b"version https://git-lfs"])
    def test_what_is_no_onnx_is_damaged(self, content: bytes, tmp_path: Path) -> None:
        file = tmp_path / "network.onnx"
        file.write_bytes(content)
        with pytest.raises(AnnotatorError, match="damaged"):
            refuse_external_data(file)
