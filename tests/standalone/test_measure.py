"""`launch.py measure`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from standalone.demo.checkpoint import CHECKPOINT, load
from standalone.demo.shapes import draw
from standalone.measure.cli import main
from tests.measure import maps

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures with their lines, those of the second a pixel to the right."""
    for name in ("pictures", "maps"):
        (tmp_path / name).mkdir()
    for number in range(2):
        picture = maps.smooth(256, 320, number)
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), picture[:, :, ::-1])
        cv2.imwrite(str(tmp_path / "maps" / f"{number}.png"), np.roll(cv2.Canny(picture, 100, 200), number, 1))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, Any, str]:
    code = main([str(part) for part in argv])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out.startswith("{") else said.out, said.err


def test_one_object_with_each_metric_a_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "errors"
    code, report, _ = run(capsys, folder / "pictures", "--maps", folder / "maps", "--preprocessor", "canny", "--json",
                          "--out", out)  # fmt: skip
    assert code == 0
    first, second = report["pictures"]
    assert (first["f1"], first["f1_tolerant"], first["ms_ssim"]) == (1, 1, 1)
    assert second["f1"] < 0.6
    assert second["f1_tolerant"] > 0.98
    assert report["mean"]["f1"] == pytest.approx((first["f1"] + second["f1"]) / 2, abs=1e-4)
    assert Path(first["picture"]).name == Path(first["map"]).name == "0.png"
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png"]


def test_how_much_of_what_it_could_each_follows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Floor: nothing of the lines. Ceiling: the second map is not that of its source, and so cannot be reached."""
    cv2.imwrite(str(folder / "blank.png"), np.zeros((256, 320), np.uint8))
    given = (folder / "pictures", "--maps", folder / "maps", "--preprocessor", "canny", "--json")
    code, report, _ = run(capsys, *given, "--floor", folder / "blank.png", "--sources", folder / "pictures")
    assert code == 0
    for row in report["pictures"]:
        assert (row["floor"], row["ceiling"], row["followed"]) == (0, row["adherence"], 1)
    assert report["mean"]["floor"] == 0
    code, report, _ = run(capsys, *given, "--floor", folder / "pictures", "--sources", folder / "blank.png")
    assert report["pictures"][0]["followed"] is None  # the floor is above the ceiling
    code, _, said = run(capsys, *given, "--floor", folder / "maps" / "0.png", "--vae", folder / "none.safetensors")
    assert code == 2
    assert "--sources" in json.loads(said)["error"]


def test_sources_go_through_the_auto_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the same file read by the demo's own loader, and lines met by dilation with a disc."""
    heart = draw(random.Random(4)).image
    cv2.imwrite(str(tmp_path / "heart.png"), heart[:, :, ::-1])
    cv2.imwrite(str(tmp_path / "map.png"), cv2.Canny(heart, 100, 200))
    given = (tmp_path / "heart.png", "--maps", tmp_path / "map.png", "--preprocessor", "canny", "--json")
    _, report, _ = run(capsys, *given, "--sources", tmp_path / "heart.png", "--vae", CHECKPOINT)
    vae = load(CHECKPOINT).vae
    pixels = torch.as_tensor(heart / 127.5 - 1, dtype=torch.float32).permute(2, 0, 1)[None]
    with torch.no_grad():
        made = vae.decode(vae.encode(pixels).latent_dist.mean).sample[0].clamp(-1, 1)
    picture = ((made.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
    found, wanted = (cv2.Canny(np.ascontiguousarray(one), 100, 200) > 0 for one in (picture, heart))
    y, x = np.mgrid[-2:3, -2:3]
    wide = [ndimage.binary_dilation(lines, x * x + y * y <= 4) for lines in (found, wanted)]
    precision, recall = wide[1][found].mean(), wide[0][wanted].mean()
    assert report["pictures"][0]["ceiling"] == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-3)
    assert report["pictures"][0]["ceiling"] < 1


def test_similarity_is_clips_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A random CLIP: the cosine is its logit without the scale."""
    torch.manual_seed(0)
    text = {"vocab_size": 49408, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 32, "patch_size": 16}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    clip = folder / "clip"
    model.save_pretrained(clip)
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "models" / "demo" / "clip")
    tokenizer.save_pretrained(clip)
    prepare = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    prepare.save_pretrained(clip)
    given = (folder / "pictures", "--maps", folder / "maps", "--preprocessor", "canny", "--json", "--prompt", "a star")
    code, report, _ = run(capsys, *given, "--clip", clip)
    assert code == 0
    pixels = prepare(images=[maps.smooth(256, 320, number) for number in range(2)], return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokenizer(["a star"], return_tensors="pt"), **pixels).logits_per_image[:, 0]
    expected = (logits / model.logit_scale.exp()).clamp(min=0)
    found = [row["similarity"] for row in report["pictures"]]
    assert found == pytest.approx(expected.tolist(), abs=1e-4)
    code, _, said = run(capsys, *given, "--clip", folder / "maps")
    assert code == 2
    assert "CLIP" in json.loads(said)["error"]
    assert run(capsys, *given)[0] == 2


def test_one_map_for_all_and_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, folder / "pictures", "--maps", folder / "maps" / "0.png", "--preprocessor", "canny")
    assert code == 0
    assert "f1_tolerant" in text
    assert "detector: canny, resolution 256" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--preprocessor", "cany"), "cany"),
        (("--preprocessor", "none"), "name a preprocessor"),
        (("--preprocessor", "canny", "--param", "sigma=2"), "sigma"),
    ],
)
def test_wrong_command_lines(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    code, _, said = run(capsys, folder / "pictures", "--maps", folder / "maps", "--json", *arguments)
    assert code == 2
    assert words in json.loads(said)["error"]


def test_a_file_where_a_folder_is_to_be_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = folder / "maps" / "0.png"
    code, _, said = run(
        capsys, folder / "pictures", "--maps", folder / "maps", "--preprocessor", "canny", "--out", taken, "--json"
    )
    assert code == 2
    assert f'"{taken}" is a file' in json.loads(said)["error"]


def test_a_picture_without_a_map(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "maps" / "1.png").unlink()
    code, _, said = run(capsys, folder / "pictures", "--maps", folder / "maps", "--preprocessor", "canny")
    assert code == 2
    assert '"1"' in said


def test_what_cannot_be_read_is_named_and_the_rest_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pictures" / "1.png").write_bytes(b"no picture")
    code, report, said = run(
        capsys, folder / "pictures", "--maps", folder / "maps", "--preprocessor", "canny", "--json"
    )
    assert code == 1
    assert len(report["pictures"]) == len(report["failed"]) == 1
    assert "1.png" in said
