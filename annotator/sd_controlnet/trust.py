"""Files that carry code, which run only where their sha256 is trusted.

TorchScript is such a file: its interpreter reaches files and every operator that any library registered, and no search
for words in an archive finds that out. What is trusted is the sha256 of the very bytes that are run: the one that the
specification states in full (`WeightFile.sha256`), or one that the user wrote down by hand.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .spec import AnnotatorError, Runtime, WeightFile
from .weights import find

PLACE = "Settings > ControlNet > Trusted files"
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def trusted_hashes(text: object) -> frozenset[str]:
    """The sha256 that lines of `text` begin with; what follows on a line, and every other line, is a remark."""
    words = (line.split()[:1] for line in str(text or "").replace(",", "\n").splitlines())
    return frozenset(word[0].lower() for word in words if word and _SHA256.fullmatch(word[0]))


@dataclass(frozen=True)
class CodeFile:
    """A network in a file with code. `sha256` is that of the bytes which it was made of.

    It stays on the `device` that it was read for: code may name one.
    """

    network: Any
    path: Path
    sha256: str
    device: str

    def parameters(self) -> Any:
        """The weights, for whoever counts their bytes."""
        return self.network.parameters()


def run_trusted(runtime: Runtime, key: str, weight: WeightFile, make: Callable[[io.BytesIO], Any]) -> Any:
    """The network in `weight`'s file, made by `make` from the bytes that were checked and kept under `key`.

    Trust is asked for at every call: a hash that the user took off the list stops a network that is loaded already.
    Raises `AnnotatorError` for a file that is missing, no archive at all, or not trusted.
    """

    def load() -> CodeFile:
        path = find(weight, runtime)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _damaged(path, error) from error
        if not zipfile.is_zipfile(io.BytesIO(content)):
            raise _damaged(path, ValueError("this is no archive"))
        sha256 = hashlib.sha256(content).hexdigest()
        _check(runtime, weight, path, sha256)
        try:
            return CodeFile(make(io.BytesIO(content)), path, sha256, runtime.device)
        except AnnotatorError:
            raise
        except Exception as error:  # the reader's errors have no class of their own
            raise _damaged(path, error) from error

    found = runtime.network(key, load)
    _check(runtime, weight, found.path, found.sha256)
    return found.network


def _check(runtime: Runtime, weight: WeightFile, path: Path, sha256: str) -> None:
    stated = weight.sha256.lower()
    if (len(stated) == 64 and sha256 == stated) or sha256 in runtime.trusted():
        return
    raise AnnotatorError(
        f"{path.name} holds code, and nobody has said that this file is trusted",
        found=f"{path} with sha256 {sha256}",
        remedy=f"only if you know who made it, write this sha256 into {PLACE}, on the page "
        "(annotate: --trust); else delete the file",
    )


def _damaged(path: Path, error: Exception) -> AnnotatorError:
    return AnnotatorError(
        f"{path.name} cannot be read: it is damaged or truncated",
        found=" ".join(f"{type(error).__name__}: {error}".split())[:200],
        remedy=f"delete {path} and get it again",
    )
