"""The embedded WebUI: a host with the `modules.*` surface of AUTOMATIC1111 1.10, for tests, demo and daily use.

`boot()` starts it inside the calling process; `python launch.py webui` serves it. See `app.py`.
"""

from __future__ import annotations

from standalone.app import App, boot

__all__ = ["App", "boot"]
