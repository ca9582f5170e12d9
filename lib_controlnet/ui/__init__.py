"""Gradio widgets made from specifications. No engine state lives here, and no picture stays here."""
