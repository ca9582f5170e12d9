"""Runs preprocessors: picture -> control map, with the results kept."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core.errors import ControlNetError, PreprocessorError, PreprocessorFailure
from ..core.images import Pixels
from ..core.preprocessors import Annotators, Detection, Detector, Entry, PreprocessorSpec, Runtime
from .device_memory import give_back, is_out_of_memory
from .preprocess_settings import DEFAULT, Asked, used_settings

log = logging.getLogger("ControlNet")


@dataclass(frozen=True)
class Found:
    """What a preprocessor found: a map, with a pose in OpenPose JSON where it drew one; or embeddings by name, and what
    the user is shown of them (h, w, 3)."""

    map: Pixels | None
    pose: Mapping[str, Any] | None = None
    tensors: Mapping[str, Any] | None = None
    shown: Pixels | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of map and embeddings."""
        maps = sum(map_.nbytes for map_ in (self.map, self.shown) if map_ is not None)
        return maps + sum(int(tensor.nbytes) for tensor in (self.tensors or {}).values())


@dataclass(frozen=True)
class PreprocessResult:
    """found: see there. The settings are those really used; `notes` say where that is not what was asked for."""

    found: Found
    spec: PreprocessorSpec
    resolution: int
    params: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def map(self) -> Pixels:
        """(h, w, 3) uint8, or (h, w, 4) with a mask in the last channel. Raises PreprocessorError if there is none."""
        if self.found.map is None:
            raise PreprocessorError(
                f'the preprocessor "{self.spec.label}" makes an embedding, not a map',
                field="module",
                remedy="choose another preprocessor for this control model",
            )
        return self.found.map


class PreprocessRunner:
    """Preprocessors behind one door: validated settings, one detector each, results cached up to `limit` bytes.

    `runtime` makes the annotator's Runtime of the host, asked before every run: another device or type in the settings
    is obeyed at once, and another folder drops what was loaded. One preprocessor runs at a time: a preview during a job
    waits for the job's, and the other way round.

    Networks are on the device while one runs, and lie in the computer's memory otherwise; with `stays` they never leave
    the device. `free`: lets go of what else is idle there, for the one that had no room.
    """

    def __init__(
        self,
        annotators: Annotators,
        runtime: Callable[[], Runtime],
        limit: int = 256 << 20,
        *,
        stays: bool = False,
        free: Callable[[], None] = lambda: None,
    ) -> None:
        self.annotators = annotators
        self._make_runtime = runtime
        self._free = free
        self._holders = int(stays)
        self._counting = threading.Lock()
        self._to_leave = self._to_unload = False
        self._runtime: Runtime | None = None
        self._limit = limit
        self._detectors: dict[str, Detector] = {}
        self._results: OrderedDict[bytes, Found] = OrderedDict()
        self._lock = threading.RLock()
        self._cancelled = threading.Event()
        self._progress: Callable[[float], None] | None = None

    def entry(self, name: str) -> Entry:
        """The preprocessor of a name. Raises PreprocessorError."""
        try:
            return self.annotators.get(name)
        except KeyError as error:
            raise _said(error) from error

    def run(
        self,
        name: str,
        image: Pixels,
        mask: Pixels | None = None,
        *,
        resolution: int = DEFAULT,
        threshold_a: float = DEFAULT,
        threshold_b: float = DEFAULT,
        seed: int = 0,
        pixel_perfect: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> PreprocessResult:
        """The control map of `image` (H, W, 3) uint8 RGB and `mask` (H, W) uint8, 255 where masked.

        -1 asks for a setting's default. Another number outside of the setting's range, or for a setting that the
        preprocessor does not have, is replaced by the default too, and a note of the result says so. `pixel_perfect` is
        a computed resolution, which takes the place of the asked one and knows no range. `progress` is told the part
        done, 0..1, of downloads and of long preprocessors.
        Raises PreprocessorError.
        """
        entry = self.entry(name)
        spec = entry.spec
        asked = Asked(resolution if pixel_perfect is None else DEFAULT, threshold_a, threshold_b)
        size, params, notes = used_settings(spec, asked)
        size = size if pixel_perfect is None or spec.resolution is None else pixel_perfect
        if spec.requires_mask and mask is None:
            mask = np.zeros(image.shape[:2], np.uint8)
        key = _key(spec.id, image, mask, size, params, seed)
        with self._lock:
            found = self._results.get(key)
            if found is None:
                self._cancelled.clear()
                self._progress = progress
                with self.held():
                    found = self._detect(entry, image, mask, size, params, seed)
                if spec.cacheable:
                    self._keep(key, found)
            else:
                self._results.move_to_end(key)
        self._settle()
        return PreprocessResult(found, spec, size, params, notes)

    def runtime(self) -> Runtime:
        """The host's runtime as it is now, with the networks that are loaded; while a preprocessor runs, afterwards."""
        with self._lock:
            self._refresh()
            assert self._runtime is not None
            return self._runtime

    def cancel(self) -> None:
        """Stop the preprocessor that runs now, if any, at the end of its present stage; its caller gets an error."""
        self._cancelled.set()

    @contextmanager
    def held(self) -> Generator[None]:
        """Networks stay on the device between the runs of this block, and leave it with the last who holds them."""
        self._hold(1)
        try:
            yield
        finally:
            if not self._hold(-1):
                self.put_away()

    def _hold(self, change: int) -> int:
        with self._counting:
            self._holders += change
            return self._holders

    def put_away(self) -> None:
        """Nothing of a network is on the device any more; while one runs in another thread, when it ends."""
        self._to_leave = True
        self._settle()

    def unload(self) -> None:
        """Free the memory of all networks; while one runs in another thread, when it ends. Results stay."""
        self._to_unload = True
        self._settle()

    def _settle(self) -> None:
        """Do what was asked for, unless a preprocessor runs in another thread, which does it afterwards.

        Nobody waits: who asks may hold what the other one needs in order to end.
        """
        while (self._to_leave or self._to_unload) and self._lock.acquire(blocking=False):
            try:
                unload, self._to_leave = self._to_unload, False
                if unload:
                    self._to_unload = False
                    self._detectors.clear()
                if self._runtime is not None:
                    (self._runtime.networks.clear if unload else self._runtime.networks.put_away)()
            finally:
                self._lock.release()

    def _detect(
        self, entry: Entry, image: Pixels, mask: Pixels | None, size: int, params: tuple[float, ...], seed: int
    ) -> Found:
        """What it finds. Out of memory frees what is idle and tries once more. Raises PreprocessorError."""
        name = entry.spec.id
        for tried_before in (False, True):
            try:
                self._refresh()
                if name not in self._detectors:
                    self._detectors[name] = entry.load(self._runtime)
                return _found(self._detectors[name](image, resolution=size, params=params, mask=mask, rng_seed=seed))
            except ControlNetError:
                raise
            except Exception as error:
                if not is_out_of_memory(error):
                    raise _said(error, f'the preprocessor "{entry.spec.label}" failed', PreprocessorFailure) from error
                if tried_before:
                    self.unload()
                    raise _out_of_memory(entry.spec, image, size, error) from error
                log.warning('The memory was too small for "%s": what was idle is freed.', entry.spec.label)
            self._make_room()  # outside of the handler, where the failed run's tensors are gone
        raise AssertionError("the second try returns or raises")

    def _make_room(self) -> None:
        """Nothing of ours is on the device, and no other preprocessor's network in the computer's memory."""
        self.unload()
        self._free()
        if self._runtime is not None:
            give_back(torch.device(self._runtime.device))

    def _refresh(self) -> None:
        """Have the host's runtime as it is now, listening to `cancel` and telling the caller's progress.

        Networks stay where their files are looked for in the same folders: those of another type are others, and every
        device gets copies of the same.
        """
        current = self._make_runtime()
        if current == self._runtime:
            return
        networks = current.networks
        if self._runtime is not None and current.weight_folders == self._runtime.weight_folders:
            networks = self._runtime.networks
        elif self._runtime is not None:
            self._runtime.networks.clear()
        self._detectors.clear()
        self._runtime = dataclasses.replace(
            current, networks=networks, cancelled=self._cancelled.is_set, progress=self._tell
        )

    def _tell(self, part: float) -> None:
        if self._progress is not None:
            self._progress(part)

    def _keep(self, key: bytes, result: Found) -> None:
        self._results[key] = result
        while len(self._results) > 1 and sum(r.nbytes for r in self._results.values()) > self._limit:
            self._results.popitem(last=False)


def _found(result: Pixels | Detection) -> Found:
    """A detector's answer, a map or the annotator's `Detection`, as ours."""
    if isinstance(result, np.ndarray):
        found = Found(result)
    else:
        found = Found(result.map, result.pose, result.tensors, getattr(result, "shown", None))
    if found.map is not None:
        found.map.flags.writeable = False  # results are shared by the cache
    return found


def _out_of_memory(spec: PreprocessorSpec, image: Pixels, size: int, error: Exception) -> PreprocessorError:
    height, width = image.shape[:2]
    seen = f"a picture of {width}x{height}" + (f" at resolution {size}" if spec.resolution is not None else "")
    lower = "lower its resolution" if spec.resolution is not None else "give it a smaller picture"
    return PreprocessorError(
        f'there is not enough memory for the preprocessor "{spec.label}"',
        field="module",
        found=f"{seen}: {error}",
        remedy=f"{lower}, or free memory; all networks of preprocessors have been unloaded",
    )


def _said(
    error: Exception, problem: str = "", failure: type[PreprocessorError] = PreprocessorError
) -> PreprocessorError:
    """An annotator's own error (problem, found, remedy) or, as a `failure`, anybody's, as ours."""
    own = getattr(error, "problem", None)
    if own is None:
        return failure(problem or str(error), field="module", found=error, remedy="choose another preprocessor")
    remedy = getattr(error, "remedy", "") or "choose another preprocessor"
    return PreprocessorError(own, field="module", found=getattr(error, "found", None), remedy=remedy)


def _key(name: str, image: Pixels, mask: Pixels | None, size: int, params: tuple[float, ...], seed: int) -> bytes:
    digest = hashlib.blake2b(repr((name, image.shape, size, params, seed, mask is None)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    if mask is not None:
        digest.update(np.ascontiguousarray(mask).data)
    return digest.digest()
