"""The command line: host options, then what the extensions' `preload.py` files add, then parsing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from modules import paths_internal, script_loading

from standalone.forge.variants import VARIANTS

parser = argparse.ArgumentParser(prog="webui", allow_abbrev=False)
cmd_opts = argparse.Namespace()

FLAGS = {
    "listen": "answer requests from other machines",
    "api": "offer /sdapi/v1",
    "nowebui": "only the HTTP API, no page",
    "api-log": "print every API request",
    "lowvram": "keep only one block of the U-Net on the graphics card",
    "medvram": "keep only one of U-Net, VAE and text encoder on the graphics card",
    "medvram-sdxl": "--medvram for SDXL checkpoints only",
    "no-half": "32-bit floats everywhere",
    "no-half-vae": "32-bit floats in the VAE",
    "upcast-sampling": "16-bit weights, 32-bit sampling",
    "disable-nan-check": "do not look for NaN in pictures",
    "disable-safe-unpickle": "do not check pickles before reading them",
    "disable-all-extensions": "start without extensions",
    "disable-extra-extensions": "start with the built-in extensions only",
    "hide-ui-dir-config": "hide folder settings",
    "freeze-settings": "settings cannot be changed",
    "no-hashing": "do not compute checkpoint hashes",
    "no-prompt-history": "do not write params.txt",
    "xformers": "accepted for compatibility",
    "opt-channelslast": "channels-last memory format",
    "autolaunch": "open the page in a browser",
    "skip-install": "accepted for compatibility",
    "disable-extension-access": "accepted for compatibility",
}


def port(text: str) -> int:
    """Of a server: 1 to 65535."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"give a number from 1 to 65535, not {text}")
    return int(text)


VALUES = {
    "port": (port, None, "port of the server (default 7860)"),
    "server-name": (str, None, "address to listen on"),
    "ckpt": (paths_internal.normalized_filepath, None, "checkpoint to load first"),
    "ckpt-dir": (paths_internal.normalized_filepath, None, "folder with checkpoints"),
    "api-auth": (str, None, 'API accounts, "user:password[,user:password]"'),
    "gradio-auth": (str, None, 'page accounts, "user:password[,user:password]"'),
    "gradio-auth-path": (str, None, "file with page accounts"),
    "precision": (str, "autocast", '"full", "half" or "autocast"'),
    "subpath": (str, None, "prefix of all addresses behind a reverse proxy"),
    "cors-allow-origins": (str, None, "other pages that may use this server: their origins, comma separated"),
    "cors-allow-origins-regex": (str, None, "the same as a regular expression"),
    "allowed-hosts": (str, None, "further names of this server (behind a proxy or tunnel), comma separated"),
    "timeout-keep-alive": (int, 30, "seconds a connection is kept open"),
    "filenames-max-length": (int, 128, "longest part of a file name"),
    "freeze-settings-in-sections": (str, None, "sections of the settings that cannot be changed"),
    "freeze-specific-settings": (str, None, "settings that cannot be changed"),
}


def add_host_arguments() -> None:
    for name, text in FLAGS.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    for name, (kind, default, text) in VALUES.items():
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    parser.add_argument("--use-cpu", nargs="+", default=[], type=str.lower, help="tasks to run on the CPU, or all")
    parser.add_argument("--data-dir", type=paths_internal.normalized_filepath, default=paths_internal.data_path)
    parser.add_argument("--models-dir", type=paths_internal.normalized_filepath, default=None)
    parser.add_argument("--gradio-allowed-path", action="append", default=[paths_internal.data_path])
    parser.add_argument("--behave-as", choices=tuple(VARIANTS), help="the WebUI to behave as, instead of A1111")
    config_file = str(Path(paths_internal.data_path) / "config.json")
    parser.add_argument("--ui-settings-file", default=config_file, help="file with the settings")


def _known(option: str) -> bool:
    return any(option in action.option_strings for action in parser._actions)


def parse(argv: Sequence[str], extension_dirs: Sequence[Path]) -> argparse.Namespace:
    """Register host and extension options and parse `argv` into `cmd_opts` (strict, as the real host)."""
    add_host_arguments()
    for folder in extension_dirs:
        script_loading.preload(folder, parser)
    if not _known("--controlnet-dir"):
        parser.add_argument("--controlnet-dir", type=paths_internal.normalized_filepath, default=None)
    parser.parse_args(list(argv), namespace=cmd_opts)
    return cmd_opts
