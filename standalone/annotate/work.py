"""One picture or shard: read, preprocessed, written whole or not at all."""

from __future__ import annotations

import importlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from PIL import Image

from annotator.sd_controlnet.spec import Runtime
from annotator.sd_controlnet.trust import trusted_hashes
from lib_controlnet.core.errors import ControlNetError
from lib_controlnet.core.images import read_mask, read_rgb, same_size
from lib_controlnet.core.units import ControlNetUnit
from lib_controlnet.engine.generation import Picture
from lib_controlnet.engine.look import Target, see
from lib_controlnet.engine.preprocess import Found, PreprocessRunner

from .options import Options
from .sources import PICTURES, Task

MAP_SUFFIX = ".png"
TENSOR_SUFFIX = ".safetensors"
POSE_SUFFIX = ".json"
HINT = "hint"
"""A shard's map has its picture's key and this part: `0001.jpg` gets `0001.hint.png`, as the trainer reads it."""


@dataclass(frozen=True)
class Outcome:
    """pictures: how many maps were made. errors: (picture, reason), several in a shard. skipped: it was there."""

    task: Task
    pictures: int = 0
    skipped: bool = False
    errors: tuple[tuple[str, str], ...] = ()


def run(task: Task, options: Options) -> Outcome:
    """Do one task; what is wrong with one picture is reported and does not stop the others."""
    if task.target.exists() and not options.overwrite:
        return Outcome(task, skipped=True)
    worker = _worker(options)
    try:
        return worker.shard(task) if task.is_shard else worker.picture(task)
    except (ControlNetError, OSError, tarfile.TarError) as error:
        return Outcome(task, errors=((task.name, str(error)),))


@lru_cache(maxsize=1)
def _worker(options: Options) -> Worker:
    """This process's preprocessor, with its network loaded once."""
    return Worker(options)


class Worker:
    """A preprocessor with the settings of `options`."""

    def __init__(self, options: Options) -> None:
        trusted = trusted_hashes("\n".join(options.trusted))
        runtime = Runtime(device=options.device, weight_folders=options.folders, trusted=lambda: trusted)
        registry = importlib.import_module("annotator.sd_controlnet.registry").discover(effects=None)
        self._options = options
        self._runner = PreprocessRunner(registry, lambda: runtime, limit=0, stays=True)

    def picture(self, task: Task) -> Outcome:
        """One file becomes one map (or embedding), with the pose beside it where there is one."""
        found = self.detect(task.source.read_bytes(), self._mask(task.name))
        # what the task is recognised by as done comes last
        for suffix, content in sorted(encoded(found).items(), key=lambda item: item[0] == task.target.suffix):
            with whole_or_nothing(task.target.with_suffix(suffix)) as path:
                path.write_bytes(content)
        return Outcome(task, pictures=1)

    def shard(self, task: Task) -> Outcome:
        """A shard becomes the same shard with a map for each picture; the key of one that failed is left out whole."""
        errors: list[tuple[str, str]] = []
        count = 0
        with whole_or_nothing(task.target) as path, tarfile.open(task.source) as old, tarfile.open(path, "w") as new:
            for key, members in _samples(old):
                try:
                    made = self._sample(key, members)
                except ControlNetError as error:
                    errors.append((f"{task.name}:{key}", str(error)))
                    continue
                count += 1
                for name, content in {**members, **made}.items():
                    _add(new, name, content)
        return Outcome(task, pictures=count, errors=tuple(errors))

    def detect(self, content: bytes, mask: bytes | None) -> Found:
        """The bytes of a picture file, and of its mask, preprocessed. Raises ControlNetError."""
        image = read_rgb(content)
        drawn = None if mask is None else read_mask(mask)
        if drawn is not None:
            same_size(image, drawn)
        a, b = (*self._options.thresholds, -1.0, -1.0)[:2]
        unit = ControlNetUnit(
            preprocessor=self._options.preprocessor,
            resolution=self._options.resolution,
            threshold_a=a,
            threshold_b=b,
        )
        target = Target(seed=self._options.seed)
        return see(self._runner, unit, Picture(image, drawn, unit.resize_mode), target).found

    def _sample(self, key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        """The new members of one key: nothing for a key without a picture (labels and the like)."""
        pictures = [name for name in members if Path(name).suffix.lower() in PICTURES and _is_source(key, name)]
        if not pictures:
            return {}
        found = self.detect(members[pictures[0]], self._mask(key))
        return {f"{key}.{HINT}{suffix}": content for suffix, content in encoded(found).items()}

    def _mask(self, name: str) -> bytes | None:
        """The mask of a picture: the file of its name in the folder of masks."""
        folder = self._options.masks
        if folder is None:
            return None
        stem = folder / PurePosixPath(name)
        for path in (stem, *(stem.with_suffix(suffix) for suffix in sorted(PICTURES))):
            if path.is_file():
                return path.read_bytes()
        raise ControlNetError("there is no mask for this picture", found=f"no {name} in {folder}")


def encoded(found: Found) -> dict[str, bytes]:
    """What was found as the contents of files, by suffix."""
    files: dict[str, bytes] = {}
    if found.map is not None:
        buffer = io.BytesIO()
        Image.fromarray(found.map).save(buffer, "PNG")
        files[MAP_SUFFIX] = buffer.getvalue()
    if found.pose is not None:
        files[POSE_SUFFIX] = json.dumps(found.pose).encode()
    if found.tensors is not None:
        from safetensors.torch import save

        files[TENSOR_SUFFIX] = save({name: tensor.contiguous() for name, tensor in found.tensors.items()})
    return files


@contextmanager
def whole_or_nothing(target: Path) -> Iterator[Path]:
    """A path to write to; it becomes `target` if the block ends well, so that what is there is always complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(target.name + ".part")
    try:
        yield draft
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _samples(shard: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Members of one key lie side by side; the key ends at the first dot of the file's name (WebDataset's rule)."""
    key, members = "", dict[str, bytes]()
    for member in shard:
        if not member.isfile():
            continue
        folder, _, file = member.name.rpartition("/")
        stem = f"{folder}/" * bool(folder) + file.split(".", 1)[0]
        if members and stem != key:
            yield key, members
            members = {}
        key = stem
        content = shard.extractfile(member)
        members[member.name] = b"" if content is None else content.read()
    if members:
        yield key, members


def _is_source(key: str, name: str) -> bool:
    """`0001.jpg`, not `0001.mask.png`: the picture itself has one extension."""
    return "." not in name.removeprefix(f"{key}.")


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    shard.addfile(info, io.BytesIO(content))
