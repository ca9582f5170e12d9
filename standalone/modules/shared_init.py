"""Fills `modules.shared`: settings, state, upscalers."""

from __future__ import annotations

from modules import shared


class PromptStyles:
    """Prompt styles. There are none in this host; prompts pass unchanged."""

    styles: dict[str, tuple[str, str, str]] = {}

    def apply_styles_to_prompt(self, prompt: str, styles: list[str]) -> str:
        return prompt

    def apply_negative_styles_to_prompt(self, prompt: str, styles: list[str]) -> str:
        return prompt


class TotalProgress:
    """Sampling steps of the whole job, counted over all passes and batches."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0

    def reset(self) -> None:
        self.done = 0

    def update(self) -> None:
        self.done += 1

    def updateTotal(self, new_total: int) -> None:
        self.total = new_total

    def clear(self) -> None:
        self.reset()


def initialize() -> None:
    """Options with their saved values, job state, upscalers. Called once at start."""
    from modules import options, shared_options, shared_state

    shared.opts = options.Options(shared_options.options_templates(), shared_options.RESTRICTED)
    shared.opts.load(shared.config_filename)
    from modules import devices  # sets shared.device; wants the parsed command line

    shared.state = shared_state.State()
    shared.prompt_styles = PromptStyles()
    shared.total_tqdm = TotalProgress()
    shared.device = devices.device
    from modules import upscaler

    shared.sd_upscalers = upscaler.builtin_upscalers()
