"""Small files: whole or not at all, and put aside when damaged."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lib_controlnet.core.files import put_aside, write_whole


def test_a_text_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "one")
    path.chmod(0o640)
    write_whole(path, "zwei 🦊")
    assert path.read_text("utf-8") == "zwei 🦊"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_whatever_fails_the_old_text_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "old")

    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if call == "fsync" else Path, call, fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_a_reader_on_windows_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, replace, tries = tmp_path / "a.json", Path.replace, []

    def busy_at_first(part: Path, target: Path) -> Path:
        tries.append(part)
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "Access is denied")
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", busy_at_first)
    write_whole(path, "new")
    assert path.read_text() == "new"


def test_a_mounted_file_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text("old, and longer")

    def mounted(*_arguments: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", mounted)
    monkeypatch.setattr(Path, "rename", mounted)
    aside = put_aside(path)
    assert aside is not None
    assert aside.read_text() == "old, and longer"
    write_whole(path, "new")
    assert path.read_text() == "new"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "a.json").symlink_to(tmp_path / "far" / "b.json")
    write_whole(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").is_symlink()
    assert (tmp_path / "far" / "b.json").read_text() == "new"


def test_damaged_files_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for number in (1, 2, 3):
        path.write_text(str(number))
        assert put_aside(path) == tmp_path / f"config.json.damaged-{number}"
        assert not path.exists()
    assert (tmp_path / "config.json.damaged-2").read_text() == "2"
    assert put_aside(path) is None
