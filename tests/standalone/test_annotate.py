"""`launch.py annotate` over folders, patterns and shards, as a user calls it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from standalone import cluster
from standalone.annotate import cli, gallery, work
from standalone.annotate.cluster import outcomes
from standalone.annotate.listing import listing
from standalone.annotate.options import Options, UsageError, parameter_names
from standalone.annotate.sources import Task
from standalone.annotate.uses import USES
from standalone.annotate.work import Outcome

RANDOM = np.random.default_rng(3)


def picture(path: Path, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = cv2.GaussianBlur(RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8), (0, 0), 1)
    Image.fromarray(pixels).save(path)
    return pixels


def annotate(*arguments: object) -> int:
    work._worker.cache_clear()
    return cli.main([str(argument) for argument in arguments])


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text("utf-8"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "deep" / "b.png")
    return tmp_path / "in"


def test_a_folder_keeps_its_shape_and_the_maps_are_those_of_opencv(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert annotate(folder, "--preprocessor", "canny", "--param", "low_threshold=30", "--param", "resolution=64",
                    "--out", out) == 0  # fmt: skip
    for name in ("a.png", "deep/b.png"):
        source = np.asarray(Image.open(folder / name))  # its short side is 64, so nothing is resized
        padded = np.pad(source, ((0, 0), (0, -source.shape[1] % 64), (0, 0)), mode="edge")
        expected = cv2.Canny(padded, 30, 200)[:, : source.shape[1]]
        assert np.array_equal(np.asarray(Image.open(out / name))[:, :, 0], expected)
        assert expected.any()
    assert report(out)["done"] == 2


def test_a_second_run_goes_on_where_the_first_ended(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    annotate(folder, "--preprocessor", "invert", "--out", out)
    kept = (out / "a.png").stat().st_mtime_ns
    (out / "deep" / "b.png").unlink()
    (out / "deep" / "b.png.part").write_bytes(b"half")
    assert annotate(folder, "--preprocessor", "invert", "--out", out) == 0
    assert (report(out)["done"], report(out)["skipped"]) == (1, 1)
    assert (out / "a.png").stat().st_mtime_ns == kept
    assert not list(out.rglob("*.part"))


def test_other_settings_are_not_mixed_into_one_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    annotate(folder, "--preprocessor", "invert", "--out", out)
    inverted = (out / "a.png").read_bytes()
    assert annotate(folder, "--preprocessor", "none", "--out", out) == 2
    assert "other settings" in capsys.readouterr().err
    assert (out / "a.png").read_bytes() == inverted
    assert annotate(folder, "--preprocessor", "none", "--out", out, "--overwrite") == 0
    assert (out / "a.png").read_bytes() != inverted


@pytest.mark.parametrize("within", ["", "deeper"])
@pytest.mark.parametrize("option", ["--out", "--gallery"])
def test_a_file_where_a_folder_is_to_be_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, within: str
) -> None:
    file = tmp_path / "out.png"
    file.write_text("mine")
    assert annotate(folder, "--preprocessor", "none", option, file / within) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said == f'launch.py annotate: {option} "{file / within}" cannot be a folder: "{file}" is a file; ' + (
        "choose another one"
    )
    assert file.read_text() == "mine"


def test_settings_that_cannot_be_read_are_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.json").write_text("{broken")
    assert annotate(folder, "--preprocessor", "none", "--out", tmp_path) == 2
    assert f'"{tmp_path / "settings.json"}" cannot be read' in capsys.readouterr().err


def test_a_broken_picture_is_reported_and_the_rest_is_done(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff no picture")
    out = tmp_path / "out"
    assert annotate(folder, "--preprocessor", "invert", "--out", out, "--contact-sheet") == 1
    assert report(out)["done"] == 2
    (failure,) = report(out)["failed"]
    assert failure["file"] == "bad.jpg"
    assert "picture" in failure["error"]
    assert not (out / "bad.png").exists()
    with Image.open(out / "contact_sheet.jpg") as sheet:
        assert sheet.width > 300


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_same_maps(folder: Path, tmp_path: Path, workers: int) -> None:
    out = tmp_path / f"out{workers}"
    assert annotate(folder, "--preprocessor", "invert", "--out", out, "--workers", workers) == 0
    for name in ("a.png", "deep/b.png"):
        expected = 255 - np.asarray(Image.open(folder / name))
        assert np.array_equal(np.asarray(Image.open(out / name)), expected)


def test_a_pattern_names_pictures(folder: Path, tmp_path: Path) -> None:
    assert annotate(folder / "**" / "b.*", "--preprocessor", "none", "--out", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["b.png"]


def shard(path: Path, broken: str = "") -> dict[str, np.ndarray]:
    pictures: dict[str, np.ndarray] = {}
    with tarfile.open(path, "w") as archive:
        for key in ("0001", "0002", "0003"):
            pictures[key] = RANDOM.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pictures[key]).save(buffer, "PNG")
            content = b"broken" if key == broken else buffer.getvalue()
            for name, data in ((f"{key}.png", content), (f"{key}.txt", b"a caption")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return pictures


def test_a_shard_gets_a_hint_for_each_picture(tmp_path: Path) -> None:
    pictures = shard(tmp_path / "set.tar")
    assert annotate(tmp_path / "set.tar", "--preprocessor", "invert", "--out", tmp_path / "out") == 0
    with tarfile.open(tmp_path / "out" / "set.tar") as made:
        names = made.getnames()
        assert names == [f"{key}.{part}" for key in pictures for part in ("png", "txt", "hint.png")]
        for key, pixels in pictures.items():
            content = made.extractfile(f"{key}.hint.png")
            assert content is not None
            assert np.array_equal(np.asarray(Image.open(content)), 255 - pixels)
    assert report(tmp_path / "out")["done"] == 3


def test_a_shard_leaves_out_what_failed_and_says_so(tmp_path: Path) -> None:
    shard(tmp_path / "set.tar", broken="0002")
    assert annotate(tmp_path / "set.tar", "--preprocessor", "invert", "--out", tmp_path / "out") == 1
    with tarfile.open(tmp_path / "out" / "set.tar") as made:
        assert not [name for name in made.getnames() if name.startswith("0002")]
    assert [failure["file"] for failure in report(tmp_path / "out")["failed"]] == ["set.tar:0002"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give INPUT, --preprocessor and --out"),
        (("{in}", "--preprocessor", "cany", "--out", "{out}"), "similar names: canny"),
        (("{in}", "--preprocessor", "canny", "--param", "low=3", "--out", "{out}"), "low_threshold, high_threshold"),
        (("{in}", "--preprocessor", "canny", "--param", "low_threshold=x", "--out", "{out}"), "NAME=NUMBER"),
        (("{in}/nothing", "--preprocessor", "canny", "--out", "{out}"), "names no picture"),
        (("{in}", "--preprocessor", "invert", "--out", "{in}"), "overwritten by its own map"),
        (("{in}", "--preprocessor", "hed", "--out", "{out}"), "ControlNetHED.pth"),
        (("{in}", "--preprocessor", "invert", "--out", "{out}", "--engine", "ray"), "an environment of its own"),
        (("{in}", "--preprocessor", "invert", "--out", "{out}", "--address", "a:1"), "give --engine ray with it"),
        (("{in}", "--preprocessor", "invert", "--out", "{out}", "--cpus-per-task", "2"), "give --engine ray with it"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    arguments: tuple[str, ...], said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    places = {"in": folder, "out": tmp_path / "out"}
    assert annotate(*(argument.format(**places) for argument in arguments)) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.png"))


@pytest.mark.parametrize("value", ["900", "-2", "inf", "nan"])
@pytest.mark.parametrize("name", ["low_threshold", "threshold_b", "resolution"])
def test_out_of_range_settings_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    value = "99999" if (name, value) == ("resolution", "900") else value
    assert annotate(folder, "--preprocessor", "canny", "--param", f"{name}={value}", "--out", tmp_path / "out") == 2
    assert f"{name}={value}: out of range" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_list_tells_of_every_preprocessor(capsys: pytest.CaptureFixture[str]) -> None:
    assert annotate("--list", "--json") == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)["preprocessors"]}
    assert len(rows) >= 72
    assert rows["canny"]["available"]
    assert [param["name"] for param in rows["canny"]["params"]] == ["resolution", "low_threshold", "high_threshold"]
    assert (
        rows["hed"]["weights"][0]["source"]
        == "https://huggingface.co/lllyasviel/Annotators/resolve/main/ControlNetHED.pth"
    )
    assert all(row["reason"] for row in rows.values() if not row["available"])
    spec = cli.importlib.import_module("annotator.sd_controlnet.registry").discover().get("canny").spec
    assert parameter_names(spec) == ["resolution", "low_threshold", "high_threshold"]


def test_masks_are_found_by_name(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "in" / "a.jpg", (32, 32))
    (tmp_path / "masks").mkdir()
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    out = tmp_path / "out"
    assert annotate(tmp_path / "in", "--preprocessor", "inpaint", "--masks", tmp_path / "masks", "--out", out) == 0
    made = np.asarray(Image.open(out / "a.png"))
    assert made.shape == (*pixels.shape[:2], 4)
    assert np.array_equal(made[:, :, 3], mask)


def test_the_gallery_shows_what_can_run_and_names_the_rest(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "docs"
    assert annotate(folder / "a.png", "--gallery", out, "--weights", tmp_path / "none", "--json") == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])["shown"]
    page = (out / "preprocessors.md").read_text("utf-8")
    assert {"canny", "invert", "inpaint", "shuffle"} <= set(shown)
    assert "hed" not in shown
    assert "environment" not in page
    assert "| Canny | [canny](#canny-cannyedgepreprocessor)" in page
    assert "https://huggingface.co/lllyasviel/Annotators/resolve/main/ControlNetHED.pth" in page
    for id_ in shown:
        file = f"preprocessors/{id_.replace('+', '_plus_')}.jpg"
        assert f"]({file})" in page
        with Image.open(out / file) as strip:
            assert strip.height == 192
    with Image.open(out / "preprocessors" / "invert.jpg") as strip, Image.open(folder / "a.png") as source:
        small = np.asarray(source.resize(strip.size)).astype(int)
        assert np.abs(np.asarray(strip).astype(int) - (255 - small)).mean() < 8


def test_the_docs_have_the_page_that_the_gallery_writes() -> None:
    registry = cli.importlib.import_module("annotator.sd_controlnet.registry").discover(effects=None)
    docs = Path(__file__).resolve().parents[2] / "docs"
    assert (docs / gallery.PAGE).read_text("utf-8") == gallery.page(listing(registry, ())["preprocessors"], docs)


def test_every_preprocessor_says_what_it_is_for() -> None:
    registry = cli.importlib.import_module("annotator.sd_controlnet.registry").discover()
    known = {*(entry.spec.id for entry in registry.entries), *registry.disabled}
    assert known <= set(USES)
    assert all(use.endswith(".") for use in USES.values())


class RayError(Exception):
    pass


class RayTaskError(RayError):
    cause = ZeroDivisionError("division by zero")


class FakeRay:
    """As much of Ray as the engine uses: two machines, and tasks that run when somebody waits for them."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, *cpus: float) -> None:
        self.cpus = cpus
        self.most = 0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": cpus}} for cpus in self.cpus]

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **needs: Any) -> Any:
        return lambda run: FakeTask()

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(references))
        return references[-num_returns:], references[:-num_returns]  # not in the order in which they were given

    def get(self, reference: Any) -> Any:
        return reference()


class FakeTask:
    """`remote` gives a reference; the task's name says how it ends."""

    def remote(self, task: Task, options: Options) -> Any:
        assert task.source.is_absolute()
        assert options.weights == (Path.cwd() / "w",)

        def end() -> Outcome:
            if task.name in ENDS:
                raise ENDS[task.name]
            return Outcome(task, pictures=1)

        return end


ENDS = {"3": RayError("The worker died.\nMany lines of advice."), "5": RayTaskError()}


@pytest.mark.parametrize(
    ("made", "most"),
    [
        (cluster.Cluster(), 12),
        (cluster.Cluster(workers=3), 3),
        (cluster.Cluster(cpus=4.0), 2),
        (cluster.Cluster(cpus=0.5), 20),
        (cluster.Cluster(cpus=0.0), 4),
    ],
)
def test_a_cluster_is_kept_busy_and_what_ends_badly_is_named(made: cluster.Cluster, most: int) -> None:
    ray: Any = FakeRay(4, 2)
    tasks = [Task(Path("in") / f"{name}.png", Path("out") / f"{name}.png", str(name)) for name in range(20)]
    options = Options("canny", weights=(Path("w"),))
    found = list(outcomes(ray, tasks, options, made))
    assert ray.most == most
    assert sorted(outcome.task.name for outcome in found) == sorted(task.name for task in tasks)
    assert all(outcome.task in tasks for outcome in found)  # with the paths that were given
    errors = dict(error for outcome in found for error in outcome.errors)
    assert errors == {
        "3": "its process died 4 times (RayError: The worker died.)",
        "5": "ZeroDivisionError: division by zero",
    }


def test_a_task_that_no_machine_can_run_is_refused() -> None:
    ray: Any = FakeRay(4, 2)
    cluster.Cluster(cpus=4.0).check(ray)
    with pytest.raises(UsageError, match="5 CPUs and 0 GPUs, and no machine at local has that"):
        cluster.Cluster(cpus=5.0).check(ray)
    with pytest.raises(UsageError, match="the most: 4 CPUs, 0 GPUs"):
        cluster.Cluster(gpus=0.5).check(ray)
