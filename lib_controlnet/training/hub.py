"""A trained model to a hub: its files, its diffusers folder and its card as one repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .card import CARD, IMAGES
from .errors import TrainingError


def uploads(folder: Path, files: Mapping[str, Path]) -> dict[str, Path]:
    """Path in the repository -> file. A diffusers folder's files lie at the top, where diffusers looks for them."""
    made = {path.name: path for key, path in files.items() if key in ("model", "ctrlora_base") and path.is_file()}
    diffusers = files.get("diffusers")
    if diffusers is not None:
        made |= {path.relative_to(diffusers).as_posix(): path for path in diffusers.rglob("*") if path.is_file()}
    if (folder / CARD).is_file():
        made[CARD] = folder / CARD
    made |= {f"{IMAGES}/{path.name}": path for path in sorted((folder / IMAGES).glob("*.png"))}
    return made


def push(repository: str, files: Mapping[str, Path], *, public: bool = False, endpoint: str | None = None) -> str:
    """Make the repository `repository` ("user/name") where there is none, private unless `public`, and upload `files`
    in one commit; its address. The token is that of `hf auth login` or HF_TOKEN.

    Raises TrainingError where the hub refuses or cannot be reached; nothing is changed there then.
    """
    import huggingface_hub

    if not any(name.endswith(".safetensors") for name in files):
        raise TrainingError("there is no model to upload", field="push", found=", ".join(files) or "nothing",
                            remedy="finish the training first")  # fmt: skip
    api: Any = huggingface_hub.HfApi(endpoint=endpoint)
    operations = [huggingface_hub.CommitOperationAdd(name, str(path)) for name, path in files.items()]
    try:
        made = api.create_repo(repository, private=not public, exist_ok=True)
        api.create_commit(made.repo_id, operations, commit_message="Upload a trained control model")
    except Exception as error:  # whatever the client's version raises: HTTP errors, refused names, no connection
        raise TrainingError("the model cannot be uploaded", field="push", found=f"{type(error).__name__}: {error}",
                            remedy="log in (hf auth login, or HF_TOKEN) and check the name") from error  # fmt: skip
    return str(made)
