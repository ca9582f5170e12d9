"""The `/controlnet/*` routes. Nothing of gradio is imported here: they also serve WebUIs without a page."""
