"""The preprocessors there are, found by looking into the folders of `entries/`.

A folder `entries/<name>/` offers `SPEC` and `load(runtime) -> Detector`, or `SPECS` and `load(runtime, id)`. A folder
that cannot be imported becomes a disabled entry with its reason: one broken dependency never stops a WebUI.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from .libraries import problem, use_folder
from .spec import FULL, AnnotatorError, Detector, OutOfRange, PreprocessorSpec, Runtime
from .third_party import detector, specification
from .unavailable import UNAVAILABLE, Unavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray


_LOG = logging.getLogger(__name__)


class UnknownPreprocessor(AnnotatorError, KeyError):
    """No preprocessor has this name."""


class UnavailablePreprocessor(AnnotatorError, KeyError):
    """The preprocessor is known, but this installation cannot run it."""


class DuplicatePreprocessor(AnnotatorError, ValueError):
    """Two preprocessors claim one name."""


@dataclass(frozen=True)
class Disabled:
    """A preprocessor that is known and cannot be run here; `reason` is a clause. `spec` is None without a folder."""

    id: str
    reason: str
    spec: PreprocessorSpec | None = None


@dataclass(frozen=True)
class Entry:
    """A preprocessor that can be run. `load` may take long and memory; its detector is kept by whoever asked for it."""

    spec: PreprocessorSpec
    load: Callable[[Runtime], Detector]


class Registry:
    """Preprocessors by any of their names, and the reasons of those that cannot be offered."""

    def __init__(self, known: Iterable[Unavailable] = (), effects: Iterable[str] | None = ()) -> None:
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, str] = {}
        self._disabled: dict[str, Disabled] = {}
        self._known_names: dict[str, str] = {}
        self._effects = None if effects is None else frozenset(effects)
        for item in known:
            self.disable(item.id, item.reason, item.names)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """In the order of the page: `none`, then by rank and by label, both downwards (the peers' order)."""
        rest = sorted(self._entries.values(), key=lambda entry: (entry.spec.rank, entry.spec.label), reverse=True)
        return tuple(sorted(rest, key=lambda entry: entry.spec.id != "none"))

    @property
    def disabled(self) -> Mapping[str, Disabled]:
        """By id, each known preprocessor that cannot be offered."""
        return MappingProxyType(self._disabled)

    def get(self, name: str) -> Entry:
        """The entry with this id, label or alias, whatever the case; the id wins where two could be meant.

        Raises `UnavailablePreprocessor` for one that is known but disabled, `UnknownPreprocessor` for any other name.
        """
        key = name.strip().lower()
        if key in self._names:
            return self._entries[self._names[key]]
        if key in self._known_names:
            disabled = self._known_names[key]
            raise UnavailablePreprocessor(
                f'the preprocessor "{name}" is known, but not available here: {self._disabled[disabled].reason}',
                remedy='choose another one, or make the map elsewhere and use "none"',
            )
        close = difflib.get_close_matches(key, self._names, n=3)
        raise UnknownPreprocessor(
            f'there is no preprocessor "{name}"',
            remedy="similar names: " + ", ".join(close) if close else 'use "none" for a map that is already made',
        )

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.strip().lower() in self._names

    def register(self, entry: Entry) -> None:
        """Add an entry, also a third party's. It takes the place of a disabled one of the same id.

        Raises `DuplicatePreprocessor` if one of its names is taken; nothing is changed then.
        """
        spec = entry.spec
        reason = problem(spec.libraries)
        if spec.effect and self._effects is not None and spec.effect not in self._effects:
            reason = f'it needs the effect "{spec.effect}" on sampling, which is not in this version'
        if reason:
            self.disable(spec.id, reason, spec.names, spec)
            return
        taken = [name for name in spec.names if name in self._names]
        if taken:
            other = self._names[taken[0]]
            raise DuplicatePreprocessor(f'the preprocessor "{spec.id}" has the name "{taken[0]}" of "{other}"')
        self._disabled.pop(spec.id, None)
        self._known_names = {name: id_ for name, id_ in self._known_names.items() if id_ in self._disabled}
        self._entries[spec.id] = entry
        self._names.update(dict.fromkeys(spec.names, spec.id))

    def register_third_party(self, peer: Any) -> None:
        """Add a preprocessor that another extension made for sd-webui-controlnet; raises as `register`."""
        self.register(Entry(specification(peer), detector(peer)))

    def disable(self, id_: str, reason: str, names: Iterable[str] = (), spec: PreprocessorSpec | None = None) -> None:
        """Remember that `id_` exists and why it cannot be offered."""
        self._disabled[id_] = Disabled(id_, reason, spec)
        for name in (id_, *names):
            self._known_names.setdefault(name.lower(), id_)


def discover(effects: Iterable[str] | None = (), *, package: str | None = None) -> Registry:
    """Every preprocessor in the `entries/` of `package`, of this one where none is named.

    `effects` are the effects on sampling that the caller has; entries that need another one are disabled. None: only
    maps are wanted.
    """
    entries = importlib.import_module(f"{package or __package__}.entries")
    use_folder(Path(__file__).resolve().parents[2] / ".packages")  # where install.py puts what hosts do not have
    registry = Registry(UNAVAILABLE, effects)
    for found in pkgutil.iter_modules(entries.__path__):
        if not found.ispkg:
            continue
        try:
            module = importlib.import_module(f"{entries.__name__}.{found.name}")
            for entry in _entries_of(module):
                registry.register(entry)
        except Exception as error:  # noqa: BLE001 - whatever a folder does, the others must be offered
            registry.disable(found.name, f"{type(error).__name__}: {error}")
    return registry


def _entries_of(module: ModuleType) -> list[Entry]:
    if hasattr(module, "SPEC"):
        return [Entry(module.SPEC, partial(_loaded, module.SPEC, module.load))]
    return [Entry(spec, partial(_loaded, spec, partial(module.load, id_=spec.id))) for spec in module.SPECS]


def _loaded(spec: PreprocessorSpec, load: Callable[[Runtime], Detector], runtime: Runtime) -> Detector:
    """The detector, computing in a type that its map bears and asking no device for what it may lack."""
    lent = runtime.computing(spec)
    found = load(lent)
    if lent.dtype != FULL:
        found = _with_full(found, load, replace(lent, dtype=FULL), spec)
    return found if runtime.device.split(":")[0] in ("cpu", "cuda") else _portable(found)


def _with_full(
    half: Detector, load: Callable[[Runtime], Detector], runtime: Runtime, spec: PreprocessorSpec
) -> Detector:
    """`half`, and where its numbers are too great for 16 bits, the same in float32."""

    def detect(image: NDArray[Any], **settings: Any) -> Any:
        try:
            return half(image, **settings)
        except OutOfRange:
            _LOG.warning("%s left the range of 16 bits and is computed in float32", spec.label)
        return load(runtime)(image, **settings)

    return detect


def _portable(detector: Detector) -> Detector:
    def detect(image: NDArray[Any], **settings: Any) -> Any:
        from .portable import Portable

        with Portable():
            return detector(image, **settings)

    return detect
