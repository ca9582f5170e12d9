"""Captions by the host's interrogator, as files beside the pictures, written before a training starts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from ..core.errors import ControlNetError
from .errors import TrainingError
from .pictures import Pixels, read_picture
from .state import write_whole

Caption = Callable[[Pixels], str]
"""What is seen on a picture (h, w, 3) uint8. Raises ControlNetError."""


def no_interrogator(pictures: Sequence[Path]) -> TrainingError:
    """For trainings that are not started from a WebUI while `pictures` lack their captions."""
    return TrainingError(
        f"{len(pictures)} pictures have no caption file, and there is no WebUI here whose interrogator could write it",
        field="data.captions",
        found=f'"{pictures[0].name}" and others' if len(pictures) > 1 else f'"{pictures[0].name}"',
        remedy="start this training on a WebUI's page Train or through its /controlnet/train; captions are kept as "
        'files; or write the files; or train without prompts: captions = "none"',
    )


class Captioning(threading.Thread):
    """Writes a caption beside each of `pictures`, one by one, then calls `then`. What is written stays, so that after a
    stop or an error it goes on where it was.

    `done` counts captions. `error` is the sentence that ended it, `stopped` whether `stop` did.
    """

    def __init__(self, pictures: Sequence[Path], extension: str, caption: Caption, then: Callable[[], None]) -> None:
        super().__init__(name="controlnet-captions", daemon=True)
        self.pictures, self.done, self.error, self.stopped = pictures, 0, "", False
        self._extension, self._caption, self._then = extension, caption, then
        self._asked = threading.Event()

    def stop(self) -> None:
        """End after the picture at hand."""
        self._asked.set()

    def run(self) -> None:
        """The thread's work."""
        try:
            for picture in self.pictures:
                if self._asked.is_set():
                    self.stopped = True
                    return
                self._write(picture)
                self.done += 1
            self._then()
        except ControlNetError as error:
            self.error = str(error)
        except Exception as error:  # noqa: BLE001 (a host's interrogator can raise anything; the page shows it)
            self.error = f"the captions could not be written: {type(error).__name__}: {error}"

    def _write(self, picture: Path) -> None:
        text = self._caption(read_picture(picture, picture.name)).strip()
        if not text:
            raise TrainingError(
                f'the interrogator says nothing about "{picture.name}"',
                field="data.captions",
                remedy="write its caption file, or remove the picture",
            )
        path = picture.with_suffix(self._extension)
        write_whole(path, lambda partial: partial.write_text(text + "\n", "utf-8"))
