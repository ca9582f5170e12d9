"""gradio as this family of hosts has it: callbacks around every widget, tooltips, own head of the page.

Nothing on the page is fetched from another machine: gradio's links to fonts and a CDN are cut out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modules import gradio_versions, patches, paths, script_callbacks, scripts

import gradio as gr  # isort: skip
from gradio import blocks, queueing, routes  # isort: skip

EXTERNAL = re.compile(
    rb'<link\s+rel="preconnect"[^>]*>|<script\s+src="https://[^"]*"[^>]*>\s*</script>|<meta\s+property="og:url"[^>]*>'
)
ASSETS = Path(paths.script_path) / "assets"


def _classes(component: Any) -> None:
    """The class names extensions' style sheets rely on."""
    component.elem_classes = [f"gradio-{component.get_block_name()}", *(component.elem_classes or [])]
    if getattr(component, "multiselect", False):
        component.elem_classes.append("multiselect")


def _around(original: Callable[..., None], takes_tooltip: bool) -> Callable[..., None]:
    """`__init__` of widgets with the host's callbacks before and after."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if takes_tooltip:
            self.webui_tooltip = kwargs.pop("tooltip", None)
        runner = scripts.scripts_current
        if runner is not None:
            runner.before_component(self, **kwargs)
        script_callbacks.before_component_callback(self, **kwargs)
        original(self, *args, **kwargs)
        _classes(self)
        script_callbacks.after_component_callback(self, **kwargs)
        if runner is not None:
            runner.after_component(self, **kwargs)

    return __init__


def _with_tooltip(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def get_config(self: Any) -> dict[str, Any]:
        config = original(self)
        tooltip = getattr(self, "webui_tooltip", None)
        return {**config, "webui_tooltip": tooltip} if tooltip else config

    return get_config


def _without_examples(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The page's configuration without sample inputs, which name files on another machine."""

    def get_config_file(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        config = original(self, *args, **kwargs)
        for component in config["components"]:
            if "example_inputs" in component:
                component["example_inputs"] = {"serialized": []}
        return config

    return get_config_file


def _patient(original: Callable[..., Any]) -> Callable[..., Any]:
    """Start of gradio 3's queue, whose calls may take as long as a picture: newer httpx gives up after 5 seconds."""

    async def start(self: Any, *args: Any, **kwargs: Any) -> None:
        await original(self, *args, **kwargs)
        self.queue_client.timeout = None

    return start


def _uploads_only(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """What a widget makes of a file: gradio 3 opens any file of the server that a request names, not uploads alone."""

    def preprocess(self: Any, payload: Any) -> Any:
        folder = Path(self.DEFAULT_TEMP_DIR).resolve()
        for item in payload if isinstance(payload, list) else [payload]:
            named = isinstance(item, dict) and item.get("is_file")
            if named and not Path(str(item.get("name"))).resolve().is_relative_to(folder):
                raise gr.Error("This is no file that was uploaded on the page.")
        return original(self, payload)

    return preprocess


def webpath(file: str | Path) -> str:
    return f"file={Path(file).as_posix()}?{Path(file).stat().st_mtime}"


def javascript_html() -> str:
    """Script tags: the host's own, then all extensions'."""
    own = sorted(ASSETS.glob("*.js"), key=lambda x: (x.name != "script.js", x.name))
    plain = [*own, *(x.path for x in scripts.list_scripts("javascript", ".js"))]
    tags = [f'<script type="text/javascript" src="{webpath(x)}"></script>' for x in plain]
    modules = [x.path for x in scripts.list_scripts("javascript", ".mjs")]
    return "\n".join([*tags, *(f'<script type="module" src="{webpath(x)}"></script>' for x in modules)])


def css_html() -> str:
    """Style sheet links: the host's own, then all extensions'."""
    files = [str(ASSETS / "style.css"), *scripts.list_files_with_name("style.css")]
    return "\n".join(f'<link rel="stylesheet" property="stylesheet" href="{webpath(x)}">' for x in files)


def reload_javascript() -> None:
    """Serve the page with the present scripts and style sheets."""
    js, css = javascript_html(), css_html()
    original = patches.original(__name__, routes.templates, "TemplateResponse")
    if original is None:
        original = routes.templates.TemplateResponse
    else:
        patches.undo(__name__, routes.templates, "TemplateResponse")

    def template_response(*args: Any, **kwargs: Any) -> Any:
        response = original(*args, **kwargs)
        body = EXTERNAL.sub(b"", response.body)
        head = f'{js}<meta name="referrer" content="no-referrer"/></head>'.encode()
        body = body.replace(b"</head>", head).replace(b"</body>", f"{css}</body>".encode())
        response.body = body
        response.init_headers()
        return response

    patches.patch(__name__, routes.templates, "TemplateResponse", template_response)


def install() -> None:
    """Apply the patches; nothing happens when they are applied."""
    if patches.originals[__name__]:
        return
    for cls, tooltip in ((gradio_versions.widget_base(), True), (blocks.BlockContext, False)):
        patches.patch(__name__, cls, "__init__", _around(cls.__init__, tooltip))
    block, page = blocks.Block, blocks.Blocks
    patches.patch(__name__, block, "get_config", _with_tooltip(block.get_config))
    if gradio_versions.IS_3:
        patches.patch(__name__, queueing.Queue, "start", _patient(queueing.Queue.start))
        for widget in (gr.File, gr.UploadButton, gr.Audio, gr.Video, gr.Model3D):
            patches.patch(__name__, widget, "preprocess", _uploads_only(widget.preprocess))
    patches.patch(__name__, page, "get_config_file", _without_examples(page.get_config_file))


def uninstall() -> None:
    """Leave gradio as it came."""
    for obj, field in list(patches.originals[__name__]):
        patches.undo(__name__, obj, field)


def theme() -> Any:
    """The theme, with the system's own fonts."""
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
