"""What stands below results: how a job was stopped, where its pictures are, and the buttons that pass one on."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from modules import gradio_versions, infotext_utils, shared
from modules.shared_cmd_options import cmd_opts

import gradio as gr  # isort: skip

TARGETS = (
    ("Send to txt2img", "txt2img", "txt2img", "Take the parameters over"),
    ("Send to img2img", "img2img", "img2img", "Take picture and parameters over"),
    ("Send to inpaint", "inpaint", "img2img", "Take picture and parameters over, to draw a mask"),
)
"""Label, where the picture goes, whose fields the parameters fill, tooltip."""
NO_PARAMETERS = "No parameters in this picture."
"""What PNG Info says of such a one."""
_senders: list[tuple[Any, Any, str, str, str]] = []
"""Button, source of its text, name of its gallery, where to, whose fields: until the page is put together."""


def stopped_html(state: Any) -> str:
    """Says that a job was stopped before its end, and where; "" for one that was not."""
    if not (state.interrupted or state.stopping_generation):
        return "<p class='stopped' role='status'>The last picture was skipped.</p>" if state.skipped else ""
    done, count, step, steps = state.stopped_at or (0, 0, 0, 0)
    where = f" at step {step} of {steps}" if steps and state.interrupted else ""
    part = f", in part {min(done + 1, count)} of {count}" if count > 1 else ""
    how = "Interrupted" if state.interrupted else "Stopped after the part that ran"
    return f"<p class='stopped' role='status'>{how}{where}{part}: what is shown is not the whole job.</p>"


def saved_html(pictures: list[Any]) -> str:
    """Where the pictures of a job lie, by folder."""
    folders: dict[Path, list[str]] = {}
    for picture in pictures:
        file = getattr(picture, "already_saved_as", None)
        if file:
            folders.setdefault(Path(file).parent, []).append(Path(file).name)
    if not folders:
        return "" if shared.opts.samples_save else "<p class='saved'>Not saved: the settings say so.</p>"
    lines = [
        f"<p class='saved'>Saved in <code>{html.escape(_shown(folder))}</code>: {html.escape(', '.join(names))}</p>"
        for folder, names in folders.items()
    ]
    return "".join(lines)


def _shown(folder: Path) -> str:
    return folder.name if cmd_opts.hide_ui_dir_config else str(folder.resolve())


def build(tabname: str, source: Any, outdir: Any = None) -> None:
    """The row of buttons. `source`: the component whose text has the parameters; `outdir()`: the folder to open."""
    _senders[:] = [sender for sender in _senders if sender[2] != tabname]
    with gr.Row(elem_id=f"image_buttons_{tabname}", elem_classes="image-buttons"):
        if outdir is not None:
            save = gr.Button("Save", size="sm", elem_id=f"save_{tabname}", min_width=60)
            save.webui_tooltip = "Download the picture that is shown, with its parameters"  # type: ignore[attr-defined]
            save.click(None, inputs=[], outputs=[], **gradio_versions.script(f'() => savePicture("{tabname}")'))
            if _is_local():
                _folder_button(tabname, outdir)
        for label, place, tab, tip in TARGETS:
            if place == tabname == "txt2img":
                continue
            button = gr.Button(label, size="sm", elem_id=f"{tabname}_send_to_{place}", min_width=60)
            button.webui_tooltip = tip  # type: ignore[attr-defined]
            _senders.append((button, source, tabname, place, tab))


def _folder_button(tabname: str, outdir: Any) -> None:
    button = gr.Button("Open folder", size="sm", elem_id=f"{tabname}_open_folder", min_width=60)
    button.webui_tooltip = "Open the folder of these pictures on this computer"  # type: ignore[attr-defined]
    answer = gr.HTML(elem_id=f"{tabname}_open_folder_answer")
    button.click(lambda: open_folder(Path(outdir())), inputs=[], outputs=[answer], show_progress="hidden")


def _is_local() -> bool:
    """Whether whoever sees the page sits before the computer whose folders would open."""
    return not (cmd_opts.listen or cmd_opts.hide_ui_dir_config or cmd_opts.allowed_hosts) and (
        cmd_opts.server_name or "127.0.0.1"
    ) in ("127.0.0.1", "localhost", "::1")


def open_folder(folder: Path) -> str:
    """Opens it with the system's file manager; what is to be said of that (HTML)."""
    if not folder.is_dir():
        return _said(f"There is no folder {folder} yet: the first picture makes it.")
    program = {"win32": "explorer", "darwin": "open"}.get(sys.platform, "xdg-open")
    found = shutil.which(program)
    if found is None:
        return _said(f"The folder is {folder.resolve()}; {program}, which would open it, is not installed.")
    subprocess.Popen([found, str(folder.resolve())], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return ""


def _said(text: str) -> str:
    return f"<p class='saved' role='status'>{html.escape(text)}</p>"


def text_of(source: str, index: str) -> str:
    """The infotext that the picture of this number has in a job's JSON; a text that is none is one already."""
    try:
        texts = json.loads(source)["infotexts"]
    except (ValueError, KeyError, TypeError):
        return source
    number = int(index) if str(index).isdigit() else 0
    return texts[number] if number < len(texts) else texts[0]


def _fill(text: str, fields: list[Any]) -> list[Any]:
    if not text or text == NO_PARAMETERS:
        return [gr.update() for _ in fields]
    return infotext_utils.pasted(text, fields)


def connect() -> None:
    """Lets every button fill the fields of its tab. Called within the page, once all tabs are there."""
    for button, source, name, place, tab in _senders:
        fields = infotext_utils.paste_fields[tab]["fields"]
        number = gr.Textbox("", visible=False)
        code = f'(text, _) => [text, sendPicture("{name}", "{place}")]'
        button.click(
            lambda text, index, fields=fields: _fill(text_of(text or "", index), fields),
            inputs=[source, number],
            outputs=[field[0] for field in fields],
            show_progress="hidden",
            **gradio_versions.script(code),
        )
