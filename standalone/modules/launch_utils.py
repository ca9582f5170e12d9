"""What `import launch` offers to extensions' installers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from modules.shared_cmd_options import cmd_opts

args = cmd_opts
python = sys.executable


@lru_cache(maxsize=1)
def git_tag() -> str:
    """Version of this checkout, "<none>" outside of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "<none>"
    command = ["git", "-C", str(root), "describe", "--tags", "--always"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "<none>"
    return f"standalone {found}" if found else "<none>"


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def run(command: str, desc: str | None = None, errdesc: str | None = None, custom_env: dict[str, str] | None = None,
        live: bool = False) -> str:  # fmt: skip
    """Run a shell command; RuntimeError when it fails."""
    if desc:
        print(desc)
    done = subprocess.run(command, shell=True, env=custom_env, capture_output=not live, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{errdesc or 'Error running command'}: {command}\n{done.stderr or ''}")
    return done.stdout or ""


def run_pip(command: str, desc: str | None = None, live: bool = False) -> str | None:
    """`pip install ...` as an extension asked for; nothing with --skip-install."""
    if cmd_opts.skip_install:
        return None
    return run(
        f'"{python}" -m pip {command} --prefer-binary', f"Installing {desc}", f"Couldn't install {desc}", live=live
    )
