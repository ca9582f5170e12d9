"""Configurations: read, checked to the last key, and those of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_controlnet.training.config import read_config
from lib_controlnet.training.errors import TrainingError

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
TEXT = """
[base]
checkpoint = "base.safetensors"
[data]
folder = "pairs"
[train]
steps = 10
learning_rate = 1
[output]
folder = "out"
name = "made"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, "utf-8")
    return path


def test_paths_are_relative_to_the_file_and_changes_win(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, TEXT), train={"steps": 3}, output={"folder": tmp_path / "other"})
    assert config.base.checkpoint == tmp_path / "base.safetensors"
    assert config.data.folder == tmp_path / "pairs"
    assert config.output.folder == tmp_path / "other"
    assert (config.train.steps, config.train.learning_rate) == (3, 1.0)
    assert (config.train.empty_prompts, config.train.sd_locked, config.samples.cfg, config.samples.steps) == (
        0.5, True, 9.0, 20,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 10", "stpes = 10", r'no option "stpes".*did you mean steps'),
        ("steps = 10", 'steps = "ten"', r"train\.steps must be int"),
        ("steps = 10", "steps = true", r"train\.steps must be int"),
        ("steps = 10", "", r"steps is missing"),
        ("steps = 10", 'steps = 10\nschedule = "sine"', r'must be "constant" or "linear" or "cosine"'),
        ("steps = 10", "steps = 10\nbetas = 0.9", r"train\.betas must be a list"),
        ("steps = 10", "steps = 10\nempty_prompts = 1.5", r"between 0 and 1"),
        ("[train]", "[trian]", r'no option "trian".*did you mean train'),
        ('folder = "pairs"', 'folder = "pairs"\nresolution = 100', r"multiple of 8"),
        ('name = "made"', 'name = "../made"', r"needs a name"),
        ("[base]", "[base", r"cannot be read"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in TEXT
    with pytest.raises(TrainingError, match=message):
        read_config(write(tmp_path, TEXT.replace(old, new, 1)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


@pytest.mark.parametrize("path", sorted(DEMO.glob("*.toml")), ids=lambda path: path.stem)
def test_the_repositorys_configurations_are_valid(path: Path) -> None:
    config = read_config(path)
    assert config.base.checkpoint.is_file()
    assert path.stem in (config.output.control_type, f"{config.output.control_type}_{config.control.kind}")
    assert config.train.empty_prompts == (0.5 if config.control.kind == "controlnet" else 0.1)
