"""Folders of the host. `configure()` is called once, before anything else of `modules` is imported."""

from __future__ import annotations

from pathlib import Path

modules_path = str(Path(__file__).resolve().parent)
script_path = str(Path(__file__).resolve().parents[1])
data_path = str(Path(script_path) / "user")
models_path = str(Path(data_path) / "models")
extensions_dir = str(Path(data_path) / "extensions")
extensions_builtin_dir = str(Path(script_path) / "extensions-builtin")
default_output_dir = str(Path(data_path) / "outputs")
cwd = str(Path.cwd())


def configure(data_dir: Path, models_dir: Path | None = None) -> None:
    """Set the folders that depend on where the user keeps data; creates the data folder."""
    global data_path, models_path, extensions_dir, default_output_dir
    data_dir.mkdir(parents=True, exist_ok=True)
    data_path = str(data_dir)
    models_path = str(models_dir or data_dir / "models")
    extensions_dir = str(data_dir / "extensions")
    default_output_dir = str(data_dir / "outputs")


def normalized_filepath(filepath: str) -> str:
    return str(Path(filepath).absolute())
