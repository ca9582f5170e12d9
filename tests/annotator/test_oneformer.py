"""OneFormer with random weights, against transformers' own class and post-processing.

It was also run by hand against sd-webui-controlnet's own detectron2 code, from the same small checkpoints: the classes
are the same.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from annotator.sd_controlnet.entries.oneformer.detector import TASK
from annotator.sd_controlnet.palettes import ADE20K, COCO
from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import AnnotatorError, Runtime

from .makers import MAKERS, random_runtime
from .makers.oneformer import network

REGISTRY = discover()
TOKENISER = Path(__file__).parents[2] / "models/demo/clip"


def picture() -> np.ndarray:
    noise = np.random.default_rng(7).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4.0).astype(np.float32)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def test_the_task_is_tokenised() -> None:
    from transformers import CLIPTokenizer

    assert tuple(CLIPTokenizer.from_pretrained(TOKENISER)("the task is semantic").input_ids) == TASK


@pytest.mark.parametrize(("id_", "side", "colours"), [("seg_ofade20k", 640, ADE20K), ("seg_ofcoco", 800, COCO)])
def test_the_classes_are_those_of_transformers(id_: str, side: int, colours: np.ndarray, folder: Path) -> None:
    from transformers.models.oneformer.image_processing_pil_oneformer import OneFormerImageProcessorPil

    entry, image = REGISTRY.get(id_), picture()
    padded = Image.fromarray(np.pad(image, ((0, 32), (0, 0), (0, 0)), mode="edge"))
    seen = np.asarray(padded.resize((side, side), Image.Resampling.BILINEAR)).astype(np.float32)
    pixels = torch.from_numpy((seen - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)).float()
    with torch.no_grad():
        task = torch.tensor([[*TASK, *[0] * 70]])
        answer = network(len(colours))(pixel_values=pixels.permute(2, 0, 1)[None], task_inputs=task)
    whole = torch.nn.functional.interpolate(answer.masks_queries_logits, (side, side), mode="bilinear")
    answer.masks_queries_logits = torch.nn.functional.interpolate(whole, (128, 128), mode="bilinear")
    # the processor resizes probabilities; asked for no size it leaves them as they are
    classes = OneFormerImageProcessorPil().post_process_semantic_segmentation(answer)[0]
    expected = colours[classes.numpy()][:96]

    found = entry.load(random_runtime(entry.spec, folder))(image, resolution=96)
    assert len(np.unique(expected.reshape(-1, 3), axis=0)) > 3, "a constant map would prove nothing"
    assert isinstance(found, np.ndarray)
    assert found.shape == expected.shape
    assert (found != expected).any(axis=2).mean() < 0.002


def test_the_other_classes_are_refused(tmp_path: Path) -> None:
    entry = REGISTRY.get("seg_ofcoco")
    file = tmp_path / "oneformer" / entry.spec.weights[0].name
    file.parent.mkdir()
    MAKERS["250_16_swin_l_oneformer_ade20k_160k.pth"](file)
    with pytest.raises(AnnotatorError, match="for other classes"):
        entry.load(Runtime(weight_folders=(tmp_path,)))(picture(), resolution=96)
