"""Preprocessors: what makes a map, an embedding or a drawing of a picture. Mounted as `sd_controlnet_annotator`.

Nothing else lies in `annotator/`: hosts have a package of that name too, and would find ours in place of theirs.
"""
