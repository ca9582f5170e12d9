"""`python launch.py webui`: the host as a server.

The page listens on 127.0.0.1:7860. Options: --port, --listen, --ckpt FILE, --controlnet-dir DIR,
--api-auth user:password, --nowebui (API only), and those of the real host that this one knows (--help).
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PORT = 7860
PAGE_JOBS, PAGE_THREADS = 64, 256
"""Handlers of the page that run or wait at once; there are always threads left for the buttons that stop a job."""
SILENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "YES",
}
"""Libraries that would call home otherwise; set before they are imported, unless the user decided."""


def _split_data_dir(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The folders must be known before the command line can be parsed."""
    if "--data-dir" not in argv:
        return None, list(argv)
    index = list(argv).index("--data-dir")
    return argv[index + 1], list(argv)


def _address(options: Any) -> str:
    return options.server_name or ("0.0.0.0" if options.listen else "127.0.0.1")


def _page_files(host: Any) -> list[str]:
    """Scripts and style sheets of the page: the host's and the extensions', nothing else of their folders."""
    extensions = [Path(x.path) for x in host.modules("extensions").active()]
    own = Path(__file__).resolve().parent / "assets"
    return [str(own), *(str(x / name) for x in extensions for name in ("javascript", "style.css"))]


def _serve_page(host: Any, options: Any) -> Any:
    """Start gradio's server with the host's routes; returns at once."""
    from standalone import server_gate, server_routes
    from standalone.server_logins import Logins

    host.demo.queue(**host.modules("gradio_versions").jobs_at_once(PAGE_JOBS))
    with server_gate.closed_from_the_start(options):
        app, local_url, _ = host.demo.launch(
            server_name=_address(options),
            server_port=options.port or PORT,
            auth=list(Logins.of(options).page) or None,
            inbrowser=options.autolaunch,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            max_threads=PAGE_THREADS,
            show_error=True,
            show_api=False,
            # else gradio asks its own page for an answer within 3 s, and ends the program of a slow computer
            _frontend=False,
            allowed_paths=[*options.gradio_allowed_path, *_page_files(host)],
            app_kwargs={"docs_url": "/docs", "redoc_url": "/redoc"},
            root_path=f"/{options.subpath}" if options.subpath else "",
        )
    server_routes.add_middleware(app, host, options)
    server_routes.add_internal_routes(app, host)
    if options.api:
        host.attach_api(app)
    host.modules("script_callbacks").app_started_callback(host.demo, app)
    print(f"Running on {local_url}", flush=True)
    return app


def _run_page(host: Any, options: Any) -> None:
    """Serve until stopped; "Reload UI" builds everything but the model again."""
    state = host.modules("shared").state
    while True:
        _serve_page(host, options)
        command = None
        try:
            while command is None:
                command = state.wait_for_server_command(timeout=5)
        except KeyboardInterrupt:
            command = "stop"
        host.demo.close()
        if command != "restart":
            return
        print("Reloading the page...", flush=True)
        time.sleep(0.5)
        host.reload()


def _run_api(host: Any, options: Any) -> None:
    import uvicorn

    from standalone import server_gate, server_routes

    server_gate.close(host.app, options, [])
    server_routes.add_middleware(host.app, host, options)
    server_routes.add_internal_routes(host.app, host)
    port = options.port or PORT
    print(f"Running on http://{_address(options)}:{port} (API only)", flush=True)
    uvicorn.run(
        host.app,
        host=_address(options),
        port=port,
        timeout_keep_alive=options.timeout_keep_alive,
        root_path=f"/{options.subpath}" if options.subpath else "",
        log_level="warning",
    )


def _load_model_in_background(host: Any) -> threading.Thread:
    """Load the model while the page is being built; jobs that come earlier wait for it."""
    thread = threading.Thread(target=lambda: host.modules("shared").sd_model, daemon=True)
    thread.start()
    return thread


def main(argv: Sequence[str] | None = None) -> int:
    """Start the server and stay until it is stopped."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    if "-h" in arguments or "--help" in arguments:
        return _help()
    with _own_uploads():
        return _serve(arguments)


@contextmanager
def _own_uploads() -> Iterator[None]:
    """A folder for what this server's page uploads, which is nobody else's and goes with it; gradio's own is shared."""
    if "GRADIO_TEMP_DIR" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="webui-uploads-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["GRADIO_TEMP_DIR"]


def _serve(arguments: list[str]) -> int:
    from standalone.app import boot
    from standalone.server_logins import Logins

    data_dir, rest = _split_data_dir(arguments)
    api_only = "--nowebui" in rest
    # with the page, the API is added to gradio's own application once that exists
    try:
        host = boot(data_dir=data_dir, argv=[*rest, "--api"], ui=True, api=api_only)
    except FileNotFoundError as e:
        print(f"The WebUI cannot start: {e}.", file=sys.stderr)
        return 1
    options = host.modules("shared").cmd_opts
    try:
        Logins.of(options)
    except (ValueError, OSError) as e:
        print(f"The server cannot start: {e}.", file=sys.stderr)
        return 1
    sys.modules.setdefault("launch", host.modules("launch_utils"))
    loading = _load_model_in_background(host)
    try:
        if api_only:
            _run_api(host, options)
        else:
            _run_page(host, options)
    except OSError as e:
        print(f"The server cannot start: {e}. Another --port may be free.", file=sys.stderr)
        return 1
    finally:
        loading.join()  # a thread that computes while the interpreter ends would abort the process
    return 0


def _help() -> int:
    from standalone.environment import REPOSITORY, Environment

    environment = Environment()
    environment.enter()
    try:
        from modules import shared_cmd_options

        shared_cmd_options.parse([], [REPOSITORY])
        shared_cmd_options.parser.print_help()
    finally:
        environment.leave([REPOSITORY])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
