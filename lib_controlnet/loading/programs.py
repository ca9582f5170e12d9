"""Keeps TorchScript out of where weights are read.

Before 2.6, `torch.load` hands an archive with a program in it to the interpreter of TorchScript, also where it was told
to read weights only (CVE-2025-32434), and unpacks the archives of before 2018.
"""

from __future__ import annotations

import tarfile
from typing import BinaryIO

import torch


def holds_program(file: BinaryIO) -> bool:
    """Whether PyTorch takes the file for TorchScript or a packed archive; its own reader is asked, not a look-alike.

    `file` is at its beginning before and after. Raises RuntimeError for a damaged archive.
    """
    try:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            return tarfile.is_tarfile(file)
        file.seek(0)
        records = torch._C.PyTorchFileReader(file).get_all_records()  # pyright: ignore[reportPrivateUsage]
        return "constants.pkl" in records
    finally:
        file.seek(0)
