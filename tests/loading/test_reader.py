"""Reading files: what is a model is read without running it, what is none is refused with a remedy."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_controlnet.core.errors import ModelFileError
from lib_controlnet.loading import reader
from lib_controlnet.loading.reader import legacy_hash, read_weights

from .files import write_pickle, write_safetensors

EXECUTED: list[str] = []


def run(text: str) -> None:
    EXECUTED.append(text)


class Payload:
    """Runs a function when it is unpickled, as malicious checkpoints do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return run, ("it ran",)


class Trainer:
    """An object of a training framework, harmless but unknown to a reader of weights."""


def refused(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        read_weights(path)
    assert caught.value.field == "model"
    assert path.name in str(caught.value)
    assert caught.value.found
    assert caught.value.remedy
    return str(caught.value)


def header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrites a safetensors header in place, keeping the tensors' bytes."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    table = json.loads(content[8 : 8 + length])
    change(table)
    text = json.dumps(table).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_safetensors({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(1000)}, tmp_path, "good")


DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


def test_safetensors_equal_the_librarys_reader(tmp_path: Path) -> None:
    tensors = {str(dtype): (torch.arange(15) % 3).view(3, 5).to(dtype) for dtype in DTYPES}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "last": torch.rand(7)}
    path = tmp_path / "all.safetensors"
    save_file(tensors, path, metadata={"global_average_pooling": "true"})
    read, expected = read_weights(path), load_file(path)
    assert read.metadata == {"global_average_pooling": "true"}
    assert set(read.weights) == set(expected) == set(tensors)
    assert len(read.weights) == len(tensors)
    for key, value in expected.items():
        ours = read.weights[key]
        assert ours.dtype == value.dtype
        assert ours.shape == value.shape
        assert torch.equal(ours.float(), value.float())


def test_headers_of_every_length_are_read(tmp_path: Path) -> None:
    """The first byte of the header's length goes through all multiples of 8: pickles begin with 0x80, zips with P."""
    path = tmp_path / "model.safetensors"
    beginnings = set()
    for length in range(256):
        save_file({"a.weight": torch.ones(2)}, path, metadata={"note": "x" * length})
        beginnings.add(path.read_bytes()[0])
        assert read_weights(path).weights["a.weight"].tolist() == [1.0, 1.0]
    assert len(beginnings) == 32
    assert {0x80, 0x50} <= beginnings


def test_writing_to_a_tensor_does_not_reach_the_file(good: Path) -> None:
    before = good.read_bytes()
    read_weights(good).weights["a"].zero_()
    assert good.read_bytes() == before
    assert read_weights(good).weights["a"].sum() == 15


def test_an_unknown_key_is_a_key_error(good: Path) -> None:
    weights = read_weights(good).weights
    assert "c" not in weights
    with pytest.raises(KeyError):
        weights["c"]


def test_nested_tables_are_flattened(tmp_path: Path) -> None:
    table = {"image_proj": {"norm.weight": torch.ones(2)}, "ip_adapter": {"1.to_k_ip.weight": torch.ones(2, 2)}}
    assert set(read_weights(write_pickle(table, tmp_path)).weights) == {
        "image_proj.norm.weight",
        "ip_adapter.1.to_k_ip.weight",
    }


def test_parameters_come_as_plain_tensors(tmp_path: Path) -> None:
    path = write_pickle({"a": torch.nn.Parameter(torch.ones(3))}, tmp_path)
    assert not read_weights(path).weights["a"].requires_grad


def test_the_hosts_replacement_of_torch_load_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A1111's checker prints and returns None where it does not like a file."""
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: None)
    assert torch.equal(read_weights(write_pickle({"a": torch.ones(3)}, tmp_path)).weights["a"], torch.ones(3))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"a": torch.ones(1), "x": Payload()}, "test_reader.run"),
        ({"state_dict": {"a": torch.ones(1)}, "callbacks": Trainer()}, "Trainer"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
    ids=["malicious", "training framework", "whole module"],
)
def test_a_pickle_with_more_than_tensors_is_refused_and_not_run(
    tmp_path: Path, content: object, named: str, legacy: bool
) -> None:
    path = tmp_path / "model.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    text = refused(path)
    assert "refused because it can run code when it is opened" in text
    assert named in text
    assert "safetensors" in text
    assert "only if you trust who made it" in text
    assert EXECUTED == []


def test_the_conversion_that_the_refusal_offers_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": {"a": torch.arange(3.0)}, "callbacks": Trainer()}, path)
    command = refused(path).partition('python -c "')[2].rpartition('"')[0]
    monkeypatch.chdir(tmp_path)
    exec(command, {})
    assert torch.equal(read_weights(tmp_path / "old.safetensors").weights["a"], torch.arange(3.0))


@pytest.mark.filterwarnings("ignore:.*TorchScript:UserWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    assert "TorchScript" in refused(path)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["safetensors", "pth", "legacy"])
def test_files_cut_off_are_refused(tmp_path: Path, kind: str, kept: float) -> None:
    weights = {f"layer.{index}": torch.rand(50, 50) for index in range(20)}
    path = (
        write_safetensors(weights, tmp_path)
        if kind == "safetensors"
        else write_pickle(weights, tmp_path, legacy=kind == "legacy")
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "download the file again" in refused(path)


def test_a_tensor_beyond_the_end_is_named(good: Path) -> None:
    good.write_bytes(good.read_bytes()[:-4])
    text = refused(good)
    assert '"good.safetensors" is cut off' in text
    assert "ends at byte" in text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda table: table["b"].update(dtype="F4"), '"b" in the number format F4'),
        (lambda table: table["b"].update(shape=[7]), '4000 bytes for "b" of shape (7,) in F32'),
        (lambda table: table["b"].update(shape=[-1000]), "of shape (-1000,)"),
        (lambda table: table["b"].update(data_offsets=[-8, 3992]), '4000 bytes for "b"'),
        (lambda table: table["b"].pop("data_offsets"), 'no dtype, shape and offsets for "b"'),
        (lambda table: table.update(b=3), 'no dtype, shape and offsets for "b"'),
        (lambda table: table.clear(), "holds no weights"),
    ],
    ids=["dtype", "shape", "negative shape", "negative offset", "no offsets", "no table", "no tensors"],
)
def test_headers_that_do_not_fit_are_refused(
    good: Path, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    header(good, change)
    assert named in refused(good)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4:UserWarning")
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a picture"),
        (b"hello, this is a note about models", "34 bytes of something else"),
        (bytes(4096), "4096 bytes"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "a header of 1099511627776 bytes in a file of 10 bytes"),
        ((9).to_bytes(8, "little") + b'{"a": nul', "an unreadable header"),
        (pickle.dumps([1, 2, 3]), "cannot read"),
    ],
    ids=["empty", "web page", "LFS", "picture", "text", "zeros", "long header", "bad header", "plain pickle"],
)
def test_files_that_are_no_models_are_refused(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "thing.safetensors"
    path.write_bytes(content)
    assert named in refused(path)


def test_a_zip_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pictures.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"1")
    assert "is damaged" in refused(path)


@pytest.mark.parametrize("content", [[torch.ones(1)], torch.ones(3), {"epoch": 3}], ids=["list", "tensor", "numbers"])
def test_pickles_without_a_table_of_weights_are_refused(tmp_path: Path, content: Any) -> None:
    assert "holds no" in refused(write_pickle(content, tmp_path))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    assert "cannot be opened" in refused(tmp_path / "missing.safetensors")
    assert "cannot be opened" in refused(tmp_path)


def test_legacy_hash_is_a1111s(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192  # 2 MiB
    (tmp_path / "big").write_bytes(content)
    assert legacy_hash(tmp_path / "big") == hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    (tmp_path / "small").write_bytes(b"x")
    assert legacy_hash(tmp_path / "small") == "e3b0c442"  # of nothing: A1111 gives it to every file under 1 MiB


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
def test_a_program_never_reaches_torch_load(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch before 2.6 would run it, also where weights alone are asked for."""
    path = tmp_path / f"model{suffix}"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    monkeypatch.setattr(reader, "torch_load", lambda *_args, **_options: pytest.fail("torch.load was reached"))
    with pytest.raises(ModelFileError, match="a TorchScript program"):
        reader.read_weights(path)


# -- headers made to confuse ---------------------------------------------------------------------------------------

NUMBERS = (
    "Infinity",
    "-Infinity",
    "NaN",
    "1e400",
    "1.5",
    "-1",
    "true",
    "null",
    '"7"',
    "[]",
    "{}",
    "9" * 30,
    "9" * 5000,
)


def with_header(path: Path, text: str) -> Path:
    path.write_bytes(len(text.encode()).to_bytes(8, "little") + text.encode() + bytes(64))
    return path


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("place", ["shape", "start", "end", "dtype", "entry", "whole"])
def test_no_number_in_a_header_does_harm(tmp_path: Path, number: str, place: str) -> None:
    values = {"shape": "2", "start": "0", "end": "8", "dtype": '"F32"', **{place: number}}
    entry = '{{"dtype": {dtype}, "shape": [{shape}], "data_offsets": [{start}, {end}]}}'.format(**values)
    text = number if place == "whole" else '{"a": ' + (number if place == "entry" else entry) + "}"
    refused(with_header(tmp_path / "odd.safetensors", text))


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"a": {"shape": ['])
@pytest.mark.parametrize("depth", [1000, 100_000])
def test_deeply_nested_headers_are_refused(tmp_path: Path, opening: str, depth: int) -> None:
    refused(with_header(tmp_path / "deep.safetensors", '{"x": ' + opening * depth))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, '
        '"b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}',
        '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, '
        '"b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
        '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, '
        '"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 32]}}',
        '{"a": {"dtype": "F32", "shape": [0, 9999999999999999999], "data_offsets": [0, 0]}}',
        '{"a": {"dtype": "F32", "shape": [0, 4611686018427387904, 4], "data_offsets": [0, 0]}}',
        '{"a": {"dtype": "F32", "shape": [' + "1, " * 5000 + '1], "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}',
        '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16, 32]}}',
        '{"a": {"dtype": "F32", "shape": [9223372036854775807], "data_offsets": [0, 9223372036854775807]}}',
    ],
    ids=["overlap", "same", "twice", "empty", "empty and large", "dimensions", "backwards", "three", "large"],
)
def test_headers_made_to_confuse_are_refused(tmp_path: Path, text: str) -> None:
    refused(with_header(tmp_path / "odd.safetensors", text))


@pytest.mark.parametrize("length", [0, 1, 7, 10**8, 2**63, 2**64 - 1])
def test_no_length_of_a_header_does_harm(tmp_path: Path, length: int) -> None:
    path = tmp_path / "long.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b'{"a":1}')
    refused(path)


# -- files that change while they are read -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "pth", "legacy"])
@pytest.mark.parametrize("change", ["emptied", "cut", "overwritten", "removed"])
def test_a_file_that_changes_in_use_does_not_end_the_process(tmp_path: Path, kind: str, change: str) -> None:
    """Mapped memory of a file that became shorter is a SIGBUS, which nothing can catch."""
    table = {"a": torch.rand(300, 300), "b": torch.rand(300, 300)}
    path = (
        write_safetensors(table, tmp_path)
        if kind == "safetensors"
        else write_pickle(table, tmp_path, legacy=kind == "legacy")
    )
    weights = read_weights(path).weights
    first = weights["a"]
    shapes = read_weights(path, shapes_only=True).weights
    if change == "removed":
        path.unlink()
    elif change == "overwritten":
        path.write_bytes(bytes(path.stat().st_size))
    else:
        os.truncate(path, 0 if change == "emptied" else path.stat().st_size // 2)
    assert torch.equal(first, table["a"])
    assert shapes["b"].shape == (300, 300)
    if kind == "safetensors" and change in ("emptied", "cut"):
        with pytest.raises(ModelFileError, match="cut off while it was read"):
            weights["b"]
    elif kind != "safetensors" or change == "removed":
        assert torch.equal(weights["b"], table["b"])


def test_shapes_are_read_without_the_data(tmp_path: Path) -> None:
    """The page looks into all files at once."""
    table = {"a": torch.rand(3, 4).half(), "b": torch.arange(5)}
    for write in (write_safetensors, write_pickle, partial(write_pickle, legacy=True)):
        shapes = read_weights(write(table, tmp_path), shapes_only=True).weights
        assert {key: (value.shape, value.dtype, value.is_meta) for key, value in shapes.items()} == {
            key: (value.shape, value.dtype, True) for key, value in table.items()
        }


def test_each_look_up_has_memory_of_its_own(good: Path) -> None:
    weights = read_weights(good).weights
    first = weights["a"]
    first.zero_()
    assert weights["a"].sum() == 15
