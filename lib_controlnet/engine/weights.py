"""The weights of preprocessors as the page sees them: which are missing, and bringing them when the user asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ..core.errors import ControlNetError, PreprocessorError
from ..core.preprocessors import WeightFile, WeightStore


class Needing(Protocol):
    """What needs files: a preprocessor's data sheet, or a control model that is offered."""

    @property
    def label(self) -> str: ...
    @property
    def weights(self) -> Sequence[WeightFile]: ...


class WeightFiles:
    """`module` is the annotator's own (`existing_file`, `download`); `folders` are those of the host, first preferred.

    One download runs at a time. Clicking its button is the permission that the setting for automatic downloads gives
    once and for all.
    """

    def __init__(self, module: WeightStore, folders: Callable[[], Sequence[Path]]) -> None:
        self._module = module
        self._folders = folders
        self._lock = threading.Lock()
        self._cancelled = threading.Event()

    def folders(self) -> list[Path]:
        """Where files are looked for, the one that downloads go to first."""
        return list(self._folders())

    def path(self, file: WeightFile) -> Path | None:
        """Where the file is; None where it is missing."""
        return self._module.existing_file(file, tuple(self._folders()))

    def missing(self, spec: Needing) -> list[WeightFile]:
        """The files of a preprocessor that are in no folder."""
        return [file for file in spec.weights if self.path(file) is None]

    def download(self, spec: Needing, progress: Callable[[float, str], None]) -> None:
        """Brings what is missing into the first folder; `progress` is told the part done and the file's name.

        Raises PreprocessorError: no network, no room, stopped, or a file that its owner gives to registered users only.
        """
        with self._lock:
            self._cancelled.clear()
            for file in self.missing(spec):
                self._bring(spec, file, progress)

    def cancel(self) -> None:
        """Stops the download that runs now, if any; the next one resumes it."""
        self._cancelled.set()

    def _bring(self, spec: Needing, file: WeightFile, progress: Callable[[float, str], None]) -> None:
        if not file.repo:
            raise PreprocessorError(
                f"{file.name} cannot be downloaded from here",
                field="module",
                found=f'the weights of "{spec.label}" come from: {file.source}',
                remedy=f"put the file into {next(iter(self._folders())) / file.folder}",
            )

        def tell(part: float) -> None:
            progress(part, file.name)

        try:
            folder = next(iter(self._folders()))
            self._module.download(file, folder, progress=tell, cancelled=self._cancelled.is_set)
        except ControlNetError:
            raise
        except Exception as error:
            problem = getattr(error, "problem", None)
            if problem is None:
                raise
            found, remedy = getattr(error, "found", None), getattr(error, "remedy", "")
            raise PreprocessorError(problem, field="module", found=found, remedy=remedy) from error


def human_size(size: int) -> str:
    """Bytes in the unit that people compare with their disk."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 0.1):.1f} MB"
