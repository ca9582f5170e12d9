"""The list of control models: order, filter, and that neither hides a file from those who know its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from lib_controlnet.core.errors import ModelFileError
from lib_controlnet.engine.library import ORDERS, Listing, ModelLibrary

FILES = ("b/Canny_v10", "a/depth", "b/canny_v2")
"""Oldest first."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for age, name in enumerate(FILES):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file({}, path, {"which": name})
        os.utime(path, (1000 + age, 1000 + age))
    return tmp_path


def stems(folder: Path, listing: Listing) -> list[str]:
    names = ModelLibrary(lambda: [folder], listing=lambda: listing).names()
    return [name.rpartition(" [")[0] for name in names]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("name", ["canny_v2", "Canny_v10", "depth"]),
        ("date", ["canny_v2", "depth", "Canny_v10"]),
        ("path name", ["depth", "canny_v2", "Canny_v10"]),
    ],
)
def test_models_are_listed_in_the_order_of_the_setting(folder: Path, order: str, expected: list[str]) -> None:
    assert order in ORDERS
    assert stems(folder, Listing(order)) == expected


def test_filter_shortens_lists_but_hides_nothing(folder: Path) -> None:
    assert stems(folder, Listing(contains=" CANNY ")) == ["canny_v2", "Canny_v10"]
    assert stems(folder, Listing(contains="no such")) == []
    library = ModelLibrary(lambda: [folder], listing=lambda: Listing(contains="canny"))
    assert library.find("depth").path.parent.name == "a"


# -- names ---------------------------------------------------------------------------------------------------------


def write(path: Path, content: str, size: int = 0) -> Path:
    """A file whose short hash follows its content where it is large enough (the hash looks at 1 MiB)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode().ljust(1, b".") * (size // max(len(content), 1) + 1))
    return path


LARGE = (1 << 20) + 5000


@pytest.fixture
def alike(tmp_path: Path) -> ModelLibrary:
    """Three files of one name, one of them directly in the model folder."""
    for place, content in (("one/same", "a"), ("two/same", "b"), ("same", "c"), ("two/other", "d")):
        write(tmp_path / "models" / f"{place}.safetensors", content, LARGE)
    return ModelLibrary(lambda: [tmp_path / "models"])


def test_files_of_one_name_are_listed_with_their_folders(alike: ModelLibrary) -> None:
    assert [name.rpartition(" [")[0] for name in alike.names()] == ["models/same", "one/same", "other", "two/same"]


@pytest.mark.parametrize("asked", ["same", "SAME", "same.safetensors", "sam", " same "])
def test_a_name_that_fits_several_files_is_refused_with_the_list(alike: ModelLibrary, asked: str) -> None:
    with pytest.raises(ModelFileError, match="fits several files") as refusal:
        alike.find(asked)
    for name in alike.names():
        assert (name in str(refusal.value)) == ("same" in name)


@pytest.mark.parametrize("asked", ["two/same", "two\\same", "Two/Same", "models/two/same", "two/same.safetensors"])
def test_the_folder_says_which_file_is_meant(alike: ModelLibrary, asked: str) -> None:
    assert alike.find(asked).path.parent.name == "two"


def test_the_hash_says_which_file_is_meant(alike: ModelLibrary) -> None:
    for name in alike.names():
        entry = alike.find(name)
        assert entry.name == name
        for asked in (f"{entry.path.stem} [{entry.hash8}]", f"elsewhere/{entry.path.stem} [{entry.hash8}]"):
            assert alike.find(asked) == entry
    with pytest.raises(ModelFileError, match="with other content"):
        alike.find("same [00000000]")


def test_a_part_of_names_is_taken_where_it_fits_one(alike: ModelLibrary) -> None:
    assert alike.find("oth").path.stem == "other"
    with pytest.raises(ModelFileError, match="was not found"):
        alike.find("")


def test_copies_of_one_model_are_one(tmp_path: Path) -> None:
    """The same file in two model folders, as after a move from one WebUI to another."""
    for folder in "ab":
        write(tmp_path / folder / "x.pth", "same", LARGE)
    library = ModelLibrary(lambda: [tmp_path / "a", tmp_path / "b"])
    assert library.find("x").path == tmp_path / "a" / "x.pth"
    (tmp_path / "b" / "config.json").write_text("{}")  # they are used in different ways now
    with pytest.raises(ModelFileError, match="fits several files"):
        library.find("x")


def test_small_files_which_the_short_hash_cannot_tell_apart_are_all_listed(tmp_path: Path) -> None:
    files = ("a/x.pth", "b/x.pth", "b/x.pt", "b/x.pth.bin")
    for name in files:
        write(tmp_path / name, name)
    names = ModelLibrary(lambda: [tmp_path]).names()
    assert len(names) == len(set(names)) == 4
    library = ModelLibrary(lambda: [tmp_path])
    assert {library.find(name).path for name in names} == {
        tmp_path / n for n in ("a/x.pth", "b/x.pth", "b/x.pt", "b/x.pth.bin")
    }


@pytest.mark.parametrize("name", ["²", "x²10", "١", "🦊 fox", "a,b: c", "[deadbeef]", "x [deadbeef]", "-1", "0" * 200])
def test_odd_names_are_found_again(tmp_path: Path, name: str) -> None:
    write(tmp_path / f"{name}.safetensors", name)
    library = ModelLibrary(lambda: [tmp_path], listing=lambda: Listing("path name"))
    (shown,) = library.names()
    assert library.find(shown).path.stem == library.find(name).path.stem == name


# -- files that change ---------------------------------------------------------------------------------------------


def test_a_file_replaced_in_place_is_another_model_without_a_refresh(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", "old", LARGE)
    library = ModelLibrary(lambda: [tmp_path])
    (old,) = library.names()
    facts = path.stat()
    write(path, "new", LARGE)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # of the same size and date, as `cp -p` leaves it
    assert library.find("x").name != old
    with pytest.raises(ModelFileError, match="with other content"):
        library.find(old)


def test_a_second_file_of_the_name_is_seen_without_a_refresh(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.pth", "one", LARGE)
    (tmp_path / "b").mkdir()
    library = ModelLibrary(lambda: [tmp_path])
    assert library.find("x").path.parent.name == "a"
    write(tmp_path / "b" / "x.pth", "two", LARGE)
    with pytest.raises(ModelFileError, match="fits several files"):
        library.find("x")
    (tmp_path / "a" / "x.pth").unlink()
    assert library.find("x").path.parent.name == "b"


# -- folders as they are -------------------------------------------------------------------------------------------


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    models, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    write(elsewhere / "sub" / "far.pth", "far")
    write(models / "own" / "near.pth", "near")
    links = {"disk": elsewhere, "file.pth": elsewhere / "sub" / "far.pth", "loop": models, "own/up": models}
    for name, target in links.items():
        (models / name).symlink_to(target)
    (elsewhere / "back").symlink_to(models)
    (models / "self").symlink_to(models / "self")
    (models / "gone.pth").symlink_to(tmp_path / "nowhere")
    (models / "unmounted").symlink_to(tmp_path / "nowhere")
    library = ModelLibrary(lambda: [models])
    found = sorted(library.find(name).path.relative_to(models).as_posix() for name in library.names())
    assert found == ["disk/sub/far.pth", "file.pth", "own/near.pth"]
    assert sorted(Path(skipped.path).name for skipped in library.skipped) == ["gone.pth", "self", "unmounted"]
    assert all("link" in skipped.reason for skipped in library.skipped)


def test_what_cannot_be_a_model_is_skipped_with_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "good.pth", "good")
    write(tmp_path / "._good.pth", "what macOS writes beside it")
    (tmp_path / "folder.safetensors").mkdir()
    write(tmp_path / "folder.safetensors" / "inside.pth", "inside")
    os.mkfifo(tmp_path / "pipe.pth")
    write(Path(os.fsdecode(os.fsencode(tmp_path / "caf") + b"\xe9.pth")), "latin-1")
    library = ModelLibrary(lambda: [tmp_path, tmp_path / "missing", Path("a\0b"), tmp_path / "good.pth"])
    assert [name.rpartition(" [")[0] for name in library.names()] == ["good", "inside"]
    reasons = {Path(skipped.path).name: skipped.reason for skipped in library.skipped}
    assert reasons.keys() == {"folder.safetensors", "pipe.pth", "caf?.pth", "a\0b", "good.pth"}
    for name, word in (("pipe.pth", "pipe"), ("caf?.pth", "UTF-8"), ("good.pth", "no folder")):
        assert word in reasons[name]
    str(library.skipped).encode("utf-8")
    said = len(caplog.records)
    library.refresh()
    assert len(caplog.records) == said == 5, "each is said once"


@pytest.mark.parametrize("call", ["open", "stat", "scandir"])
@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_what_may_not_be_read_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: OSError
) -> None:
    """By root everything may be read, so the system's calls say no here."""
    write(tmp_path / "good.pth", "good")
    bad = write(tmp_path / "bad" / "bad.pth", "bad")
    owner = os if call == "scandir" else Path
    original = getattr(owner, call)
    refused = bad.parent if call == "scandir" else bad

    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        if Path(path) == refused:
            raise error
        return original(path, *args, **kwargs)

    monkeypatch.setattr(owner, call, refuse)
    library = ModelLibrary(lambda: [tmp_path])
    assert [name.rpartition(" [")[0] for name in library.names()] == ["good"]
    assert [(Path(skipped.path), skipped.reason) for skipped in library.skipped] == [(refused, error.strerror)]


def test_a_file_removed_while_the_folder_is_read_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.pth", name)
    original = Path.stat

    def vanish(path: Path, **kwargs: Any) -> Any:
        if path.name == "a.pth":
            path.unlink(missing_ok=True)
        return original(path, **kwargs)

    monkeypatch.setattr(Path, "stat", vanish)
    assert len(ModelLibrary(lambda: [tmp_path]).names()) == 1


def test_folders_nested_deeply_are_read(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d"] * 1200)  # deeper than Python calls itself
    for depth in range(1, 1201):
        tmp_path.joinpath(*["d"] * depth).mkdir()
    file = write(folder / "deep.pth", "deep")
    assert ModelLibrary(lambda: [tmp_path]).find("deep").path == file
    file.unlink()
    for depth in range(1200, 0, -1):  # pytest's own tidying calls itself for each
        tmp_path.joinpath(*["d"] * depth).rmdir()
