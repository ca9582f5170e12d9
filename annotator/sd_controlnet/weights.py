"""Finds the weights of preprocessors in the folders of the WebUI and its predecessors, and downloads what is missing.

A download happens only where the user allowed it (`Runtime.download_folder`). It runs in a process of its own
(hub_download.py), so that it can be stopped at once and libraries that are told to stay offline stay so. A file gets
its name when it is whole and its sha256 is right; a broken download is resumed by the next.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .spec import AnnotatorError, Cancelled, Runtime, WeightFile

STAGING = ".downloads"
_SCRIPT = Path(__file__).with_name("hub_download.py")
_POLL_SECONDS = 0.1
_MIB = 1 << 20
_HUB = dict.fromkeys(("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY"), "1")


class MissingWeights(AnnotatorError):
    """A file that the preprocessor needs is in none of the folders, and may not or cannot be downloaded."""


def find(weight: WeightFile, runtime: Runtime) -> Path:
    """The file of `weight`. Raises `MissingWeights` with name, folder, size and source, or what a download raises."""
    existing = existing_file(weight, runtime.weight_folders)
    if existing is not None:
        return existing
    target = runtime.download_folder()
    if target is None or not weight.repo:
        raise _missing(weight, runtime)
    return download(weight, target, progress=runtime.progress, cancelled=runtime.cancelled)


def existing_file(weight: WeightFile, folders: tuple[Path, ...]) -> Path | None:
    """The first file of `weight` in `folders`, where sd-webui-controlnet, Forge or comfyui_controlnet_aux put it."""
    return next((path for folder in folders for path in _places(weight, folder) if path.is_file()), None)


def download(
    weight: WeightFile,
    folder: Path,
    *,
    progress: Callable[[float], None] = lambda _part: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Bring `weight` from the hub into `folder` and return its file; `progress` is told the part done, 0..1.

    Raises `MissingWeights` (no network, no room, wrong sha256) or `Cancelled`; no partial file has the name then.
    """
    target = folder / weight.folder / weight.name
    staging = folder / STAGING / weight.name
    try:
        staging.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(staging).free
    except OSError as error:
        raise _failed(weight, folder, f"{error.strerror or error}: {error.filename}") from error
    if free + _size(staging) < weight.size:
        raise _failed(weight, folder, f"only {free // _MIB} MiB are free on its disk")
    answer = _run(weight, staging, folder, progress, cancelled)
    _check(weight, Path(answer["file"]), answer["sha256"], staging, folder)
    try:
        Path(answer["file"]).replace(target)
    except OSError as error:
        raise _failed(weight, folder, str(error)) from error
    shutil.rmtree(staging, ignore_errors=True)
    return target


def _places(weight: WeightFile, folder: Path) -> Iterator[Path]:
    yield folder / weight.folder / weight.name
    yield folder / weight.name
    if weight.repo:
        yield folder / weight.repo / (weight.path or weight.name)


def _run(
    weight: WeightFile,
    staging: Path,
    folder: Path,
    progress: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> dict[str, str]:
    """Let the script download into `staging`; its answer is `{"file", "sha256"}`."""
    order = {
        "repo": weight.repo,
        "path": weight.path or weight.name,
        "repo_type": weight.repo_type,
        "folder": str(staging),
    }
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", **_HUB}
    log = staging / "log.txt"
    with log.open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, str(_SCRIPT), json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            _watch(process, weight, staging, progress, cancelled)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        lines = [line for line in output.read().splitlines() if line.strip()]
    last = lines[-1] if lines else f"the download ended with exit code {process.returncode} and no message"
    if process.returncode:
        raise _failed(weight, folder, last)
    return json.loads(last)


def _watch(
    process: subprocess.Popen[bytes],
    weight: WeightFile,
    staging: Path,
    progress: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> None:
    """Until the download ends: tell how far it is. Raises `Cancelled` when the user wants no more."""
    while process.poll() is None:
        if cancelled():
            raise Cancelled(f"the download of {weight.name} was stopped", remedy="the next one resumes it")
        progress(min(_size(staging) / max(weight.size, 1), 1.0))
        time.sleep(_POLL_SECONDS)


def _check(weight: WeightFile, file: Path, hub_sha: str, staging: Path, folder: Path) -> None:
    """Compare with the hub's record and with what was published; a wrong file is deleted, so that nobody resumes it."""
    expected = {sha for sha in (hub_sha, weight.sha256) if sha}
    if not expected:
        return
    found = _sha256(file)
    if not all(found.startswith(sha.lower()) for sha in expected):
        shutil.rmtree(staging, ignore_errors=True)
        raise _failed(weight, folder, f"its sha256 is {found}, expected {' and '.join(sorted(expected))}")


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_MIB):
            digest.update(block)
    return digest.hexdigest()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += 0 if path.is_symlink() or not path.is_file() else path.stat().st_size
        except OSError:  # renamed by the download while we looked
            continue
    return total


def _missing(weight: WeightFile, runtime: Runtime) -> MissingWeights:
    looked = ", ".join(str(folder) for folder in runtime.weight_folders) or "no folder"
    offer = ", or allow downloads of preprocessor weights in Settings > ControlNet" if weight.repo else ""
    return MissingWeights(
        f"the weights {weight.name} (about {_human(weight.size)}) are missing",
        found=f"no {weight.folder}/{weight.name} in {looked}",
        remedy=f"get them from {weight.source} into the subfolder {weight.folder} of one of these folders{offer}",
    )


def _failed(weight: WeightFile, folder: Path, reason: str) -> MissingWeights:
    return MissingWeights(
        f"the weights {weight.name} (about {_human(weight.size)}) could not be downloaded from {weight.source}",
        found=reason,
        remedy=f"try again (what has come is kept), or put the file into {folder / weight.folder} yourself",
    )


def _human(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 0.1):.1f} MB"
