"""Kinds of embeddings: what preprocessors give in place of maps, and what control models take.

A preprocessor's data sheet names the kind it gives (`embedding`), a control model those it takes (`embeddings`), so
that a wrong pair is refused and the right one found, without a look at names.
"""

from __future__ import annotations

CLIP_L = "clip_l"
CLIP_H = "clip_h"
CLIP_G = "clip_g"
FACE_ID = "face_id"
"""InsightFace's buffalo_l."""
FACE_ID_PLUS = "face_id_plus"
"""The same, and CLIP ViT-H's hidden states of the aligned face."""
INSTANT_ID = "instant_id"
"""InsightFace's antelopev2, not at unit length."""
PULID = "pulid"
"""InsightFace's antelopev2, not at unit length, and what EVA-CLIP sees of the aligned face."""

WORDS = {
    CLIP_L: "what CLIP ViT-L sees in a picture",
    CLIP_H: "what CLIP ViT-H sees in a picture",
    CLIP_G: "what CLIP ViT-bigG sees in a picture",
    FACE_ID: "a face as InsightFace's buffalo_l knows it",
    FACE_ID_PLUS: "a face as InsightFace's buffalo_l and CLIP ViT-H know it",
    INSTANT_ID: "a face as InsightFace's antelopev2 knows it",
    PULID: "a face as InsightFace's antelopev2 and EVA-CLIP know it",
}

IMAGE = "image_embeds"
"""(n, P): CLIP's embedding of n pictures."""
HIDDEN = "penultimate_hidden_state"
"""(n, tokens, W): CLIP's tokens before its last layer."""
ZERO_HIDDEN = "zero_hidden_state"
"""(1, tokens, W): the same of a picture of zeros in the encoder's own units, which stands for no picture."""
FACE = "face_embeds"
"""(n, 512): a face; at unit length from FACE_ID."""
RAW_FACE = "raw_face_embeds"
"""(n, 512): not at unit length."""
IDENTITY = "id_cond"
"""(n, 1280): a face, InsightFace's numbers and then EVA-CLIP's."""
SEEN = tuple(f"id_vit_hidden_{level}" for level in range(5))
"""(n, tokens, W) each: what five of EVA-CLIP's blocks see of it."""
ROWS = (IMAGE, FACE, RAW_FACE, IDENTITY)
"""Those with one row of numbers a picture."""
UNCOND = "uncond_"
"""Before a name: of the picture for the rows of the negative prompt."""


def words(kind: str) -> str:
    """What a kind of embedding is, for the user."""
    return WORDS.get(kind, f'an embedding of the kind "{kind}"')
