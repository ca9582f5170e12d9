"""What may change between a saved training and the one that goes on from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import TrainingError
from .examples import Example

_FREE = {f"train.{name}" for name in ("steps", "learning_rate", "decoder_learning_rate", "clip_norm", "precision",
                                      "checkpointing")}  # fmt: skip
"""What one changes when a training has to be prolonged, calmed or fitted into memory: it goes on unasked."""
_BY_CONTENT = {
    "base.checkpoint", "base.vae", "base.start", "base.hint_init", "data.folder", "data.format", "data.control_folder",
    "data.metadata", "data.picture_column", "data.hint_column", "data.caption_column", "data.captions",
    "data.caption_extension", "data.allow_empty_captions", "data.control", "data.count", "data.text_cache",
    "data.held_out", "data.accept", "data.pass_over",
}  # fmt: skip
"""Says where things lie; whether they are others is seen in them (`Marks`)."""
_IMPOSSIBLE = {"base.hint_widths", "train.sd_locked", "train.optimizer", "train.rates", "control.kind", "control.rank",
               "control.condition_channels", "control.layers", "control.light", "control.gray",
               "control.ratio"}  # fmt: skip


def marks(sha256: str, train: Sequence[Example], held_out: Sequence[Example]) -> dict[str, Any]:
    """By what is in them: the checkpoint, the pairs trained on and those held out."""
    return {
        "base": sha256,
        "pairs": len(train),
        "train": _fingerprint(train),
        "held_out": _fingerprint(held_out),
        "held_out_pairs": len(held_out),
    }


def _fingerprint(examples: Sequence[Example]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for example in examples:
        hint = "" if example.hint is None else example.hint.facts().fingerprint
        digest.update(
            "\0".join([example.picture.facts().fingerprint, hint, *example.captions, ""]).encode("utf-8", "replace")
        )
    return digest.hexdigest()


def check_changes(
    stored: Mapping[str, Any], config: Mapping[str, Any], now: Mapping[str, Any], accept: bool
) -> list[str]:
    """The changes with which the training goes on, a sentence each.

    Raises TrainingError for what makes going on impossible, and, unless `accept`, for what makes another run of it.
    """
    impossible, changing, harmless = _settings(stored["config"], config)
    before: Mapping[str, Any] = stored.get("marks", now)
    if before["base"] != now["base"]:
        impossible.append("base.checkpoint: another checkpoint's content")
    if before["train"] != now["train"]:
        cut = before["pairs"] != now["pairs"]
        what = f"{before['pairs']} pairs then, {now['pairs']} now" if cut else "other pictures, maps or captions"
        changing.append(f"the data: {what}")
    if before["held_out"] != now["held_out"]:
        harmless.append("other pairs are held out for samples: their curve goes on from other pictures")
    if impossible:
        raise TrainingError(
            "the saved training cannot go on with these changes",
            field="resume",
            found=", ".join(impossible + changing),
            remedy="take them back, or start anew without --resume",
        )
    if changing and not accept:
        raise TrainingError(
            "the saved training had other settings or data; going on would make another run of it",
            field="resume",
            found=", ".join(changing),
            remedy="take them back, start anew without --resume, or go on with --accept-changes",
        )
    return [f"goes on with a change: {change}" for change in changing] + harmless


def _settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """(impossible, changing the run, harmless) changes of the settings that decide what is trained."""
    impossible: list[str] = []
    changing: list[str] = []
    harmless: list[str] = []
    for section in ("base", "control", "data", "train"):
        for key, value in now[section].items():
            old, name = before.get(section, {}).get(key, value), f"{section}.{key}"
            if old == value or name in _BY_CONTENT:
                continue
            kind = impossible if name in _IMPOSSIBLE else harmless if name in _FREE else changing
            kind.append(f"{name}: {old} then, {value} now")
    return impossible, changing, harmless
