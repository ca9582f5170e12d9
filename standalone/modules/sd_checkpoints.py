"""Checkpoint files: finding them, naming them, reading their weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
from modules import errors, hashes, paths, safe, shared
from modules.shared_cmd_options import cmd_opts
from torch import Tensor

checkpoints_list: dict[str, CheckpointInfo] = {}
checkpoint_aliases: dict[str, CheckpointInfo] = {}
SUFFIXES = (".safetensors", ".ckpt", ".pt")
DEMO = Path(paths.script_path).parent / "models" / "demo" / "demo.safetensors"
"""The model that comes with the repository: always in the list, whatever the user has."""
model_path = str(Path(paths.models_path) / "Stable-diffusion")


def model_hash(filename: str) -> str:
    """The old 8-digit hash: sha256 of 64 KiB at 1 MiB."""
    try:
        with open(filename, "rb") as file:
            file.seek(0x100000)
            return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
    except FileNotFoundError:
        return "NOFILE"


def read_metadata(filename: str) -> dict[str, Any]:
    """Metadata of a safetensors file; values that are JSON objects are parsed."""
    with safetensors.safe_open(filename, framework="pt") as file:
        raw = file.metadata() or {}
    parsed: dict[str, Any] = {}
    for key, value in raw.items():
        try:
            parsed[key] = json.loads(value) if value[:1] == "{" else value
        except ValueError:
            parsed[key] = value
    return parsed


class CheckpointInfo:
    """One checkpoint and the names by which it is found."""

    def __init__(self, filename: str) -> None:
        self.filename = filename
        self.is_safetensors = filename.lower().endswith(".safetensors")
        self.name = self._relative_name(Path(filename))
        self.metadata: dict[str, Any] = {}
        if self.is_safetensors:
            try:
                self.metadata = read_metadata(filename)
            except Exception as e:  # noqa: BLE001 - a damaged file is reported when it is loaded
                errors.display(e, f"reading metadata for {filename}")
        self.name_for_extra = Path(filename).stem
        self.model_name = str(Path(self.name.replace("/", "_").replace("\\", "_")).with_suffix(""))
        self.hash = model_hash(filename)
        self.sha256 = hashes.sha256_from_cache(filename, f"checkpoint/{self.name}")
        self.shorthash: str | None = None
        self.title = self.name
        self.short_title = self.name_for_extra
        names = [self.hash, self.model_name, self.name, self.name_for_extra, f"{self.name} [{self.hash}]"]
        self.ids: list[str] = names
        self._take_hash()

    @staticmethod
    def _relative_name(file: Path) -> str:
        for root in (cmd_opts.ckpt_dir, model_path):
            if root and Path(root).absolute() in file.absolute().parents:
                return str(file.absolute().relative_to(Path(root).absolute()))
        return file.name

    def _take_hash(self) -> None:
        if not self.sha256:
            return
        self.shorthash = self.sha256[:10]
        self.title = f"{self.name} [{self.shorthash}]"
        self.short_title = f"{self.name_for_extra} [{self.shorthash}]"
        for name in (self.shorthash, self.sha256, self.title, self.short_title):
            if name not in self.ids:
                self.ids.append(name)

    def register(self) -> None:
        checkpoints_list[self.title] = self
        checkpoint_aliases.update(dict.fromkeys([*self.ids, self.title], self))

    def calculate_shorthash(self) -> str | None:
        """Hash the file when needed and register under the title that carries the hash."""
        self.sha256 = hashes.sha256(self.filename, f"checkpoint/{self.name}")
        old = self.title
        self._take_hash()
        if old != self.title and checkpoints_list.get(old) is self:
            entries = [(self.title if k == old else k, v) for k, v in checkpoints_list.items()]
            checkpoints_list.clear()
            checkpoints_list.update(entries)
        self.register()
        return self.shorthash


def _files(folder: Path) -> list[str]:
    return [x for x in shared.walk_files(str(folder), list(SUFFIXES)) if not x.endswith(".vae.safetensors")]


def list_models() -> None:
    """Find all checkpoints again: --ckpt first, then the folders."""
    checkpoints_list.clear()
    checkpoint_aliases.clear()
    if cmd_opts.ckpt:
        if not Path(cmd_opts.ckpt).is_file():
            raise FileNotFoundError(f"--ckpt names {cmd_opts.ckpt}, and there is no such file")
        info = CheckpointInfo(cmd_opts.ckpt)
        info.register()
        shared.opts.data["sd_model_checkpoint"] = info.title
    folders = [Path(x) for x in (model_path, cmd_opts.ckpt_dir) if x]
    found = [x for folder in folders for x in _files(folder)]
    if DEMO.is_file():
        found.append(str(DEMO))
    for file in dict.fromkeys(found):
        if not cmd_opts.ckpt or Path(file).resolve() != Path(cmd_opts.ckpt).resolve():
            CheckpointInfo(file).register()


def checkpoint_tiles(use_short: bool = False) -> list[str]:
    infos = sorted(checkpoints_list.values(), key=lambda x: shared.natural_sort_key(x.title))
    return [x.short_title if use_short else x.title for x in infos]


def get_closet_checkpoint_match(search_string: str | None) -> CheckpointInfo | None:
    """By any of its names, else the shortest title that contains the text."""
    if not search_string:
        return None
    found = checkpoint_aliases.get(search_string)
    if found is not None:
        return found
    wanted = search_string.split(" [")[0]
    matches = sorted((x for x in checkpoints_list.values() if wanted in x.title), key=lambda x: len(x.title))
    return matches[0] if matches else None


def select_checkpoint() -> CheckpointInfo:
    """The checkpoint of the settings, else the first there is."""
    wanted = shared.opts.sd_model_checkpoint
    found = checkpoint_aliases.get(wanted) if wanted else None
    if found is not None:
        return found
    if not checkpoints_list:
        where = f"{model_path} or name a file with --ckpt"
        raise FileNotFoundError(f"No checkpoint was found. Put a Stable Diffusion 1.x checkpoint into {where}.")
    first = next(iter(checkpoints_list.values()))
    if wanted is not None:
        errors.report(f"Checkpoint {wanted} not found; loading fallback {first.title}")
    return first


def picture_size() -> int:
    """Side of the pictures the chosen checkpoint was made for, from its "modelspec.resolution"; 512 by default."""
    try:
        stated = str(select_checkpoint().metadata.get("modelspec.resolution", ""))
    except FileNotFoundError:
        return 512
    side = stated.lower().split("x")[0]
    return int(side) if side.isdigit() else 512


def read_state_dict(
    checkpoint_file: str, print_global_state: bool = False, map_location: Any = None
) -> dict[str, Tensor]:
    """Weights of a checkpoint; a "state_dict" around them is removed. Pickles are read weights-only."""
    if checkpoint_file.lower().endswith(".safetensors"):
        weights = safetensors.torch.load(Path(checkpoint_file).read_bytes())  # not mapped: it may be overwritten
        return {name: tensor.to(map_location or "cpu") for name, tensor in weights.items()}
    loaded = safe.load_weights(checkpoint_file, map_location=map_location or "cpu")
    return loaded.get("state_dict", loaded)
