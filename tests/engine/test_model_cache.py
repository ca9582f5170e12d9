"""Loaded models follow their files: a replaced one is read anew, and what it replaced leaves memory."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_controlnet.core.errors import ModelFileError
from lib_controlnet.engine import model_cache
from lib_controlnet.engine.model_cache import ModelCache
from lib_controlnet.families.base import Runtime
from lib_controlnet.families.registry import discover
from tests.engine.tiny import randomise, tiny_controlnet

RUNTIME = Runtime(torch.device("cpu"), torch.float32)


def write(path: Path, seed: int) -> Path:
    save_file(randomise(tiny_controlnet(), seed).state_dict(), path)
    return path


@pytest.fixture
def cache() -> ModelCache:
    return ModelCache(discover(), lambda: 1 << 40)


def test_a_file_replaced_in_place_is_read_anew_and_its_old_version_goes(tmp_path: Path, cache: ModelCache) -> None:
    path = write(tmp_path / "x.safetensors", 1)
    old = cache.get(path, RUNTIME, "")
    assert cache.get(path, RUNTIME, "") is old
    gone, facts = weakref.ref(old), path.stat()
    write(path, 2)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert cache.get(path, RUNTIME, "") is not old
    del old
    gc.collect()
    assert gone() is None


def test_a_removed_file_leaves_memory_with_the_next_model(tmp_path: Path, cache: ModelCache) -> None:
    path, other = write(tmp_path / "x.safetensors", 1), write(tmp_path / "y.safetensors", 2)
    gone = weakref.ref(cache.get(path, RUNTIME, ""))
    path.unlink()
    cache.get(other, RUNTIME, "")
    gc.collect()
    assert gone() is None
    with pytest.raises(ModelFileError, match="cannot be read"):
        cache.get(path, RUNTIME, "")


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.safetensors", 1)
    load = model_cache.load_model

    def load_and_replace(*arguments: object) -> object:
        model = load(*arguments)  # type: ignore[arg-type]
        write(path, 2)
        return model

    monkeypatch.setattr(model_cache, "load_model", load_and_replace)
    with pytest.raises(ModelFileError, match="changed while it was read"):
        cache.get(path, RUNTIME, "")
    monkeypatch.undo()
    assert cache.get(path, RUNTIME, "") is not None


def test_what_changes_beside_a_file_is_read(tmp_path: Path, cache: ModelCache) -> None:
    path = write(tmp_path / "x.safetensors", 1)
    first = cache.get(path, RUNTIME, "")
    path.with_suffix(".yaml").write_text("global_average_pooling: True")
    assert cache.get(path, RUNTIME, "") is not first
