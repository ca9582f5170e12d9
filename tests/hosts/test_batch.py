"""Batches of pictures, merged pictures, loopback, and the prompt modes, in the embedded host."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from lib_controlnet.core.panel_options import DEFAULT_PROMPT
from lib_controlnet.hosts.webui import batch_tab
from tests.hosts.conftest import Host, as_base64, picture, pixels, unit


def batch(*seeds: int, **fields: Any) -> dict[str, Any]:
    """A unit with one generation for each picture."""
    images = [as_base64(picture(seed)) for seed in seeds]
    return unit(image=None, input_mode="batch", images=images, **fields)


def from_page(host: Host, monkeypatch: pytest.MonkeyPatch, *units: Any, **settings: Any) -> Any:
    """The same job as the page's own: folders may be chosen."""
    processing = host.app.modules("processing")
    original = processing.StableDiffusionProcessingTxt2Img

    class Page(original):
        @property
        def is_api(self) -> bool:
            return False

        @is_api.setter
        def is_api(self, _value: bool) -> None:
            pass

    monkeypatch.setattr(processing, "StableDiffusionProcessingTxt2Img", Page)
    return host.txt2img(*units, **settings)


def test_each_picture_of_a_batch_is_a_generation_with_the_same_seed(host: Host) -> None:
    result = host.txt2img(batch(1, 2))
    assert len(result.images) == 2
    for index, seed in enumerate((1, 2)):
        alone = host.txt2img(unit(image=as_base64(picture(seed))))
        assert np.array_equal(pixels(result, index), pixels(alone))
    assert result.all_seeds == [11, 11]


def test_batch_count_and_size_are_those_of_every_picture(host: Host) -> None:
    result = host.txt2img(batch(1, 2, 3), n_iter=2, batch_size=2)
    assert len([text for text in result.infotexts if "ControlNet 0" in text]) >= 12
    assert result.all_seeds == [11, 12, 13, 14] * 3


def test_shortest_batch_decides_and_other_units_keep_their_picture(host: Host) -> None:
    result = host.txt2img(batch(1, 2, 3), batch(4, 5), unit(model="second", weight=0.5))
    assert len(result.images) == 2
    one = host.txt2img(
        unit(image=as_base64(picture(2))), unit(image=as_base64(picture(5))), unit(model="second", weight=0.5)
    )
    assert np.array_equal(pixels(result, 1), pixels(one))


def test_loopback_goes_on_from_the_first_result(host: Host) -> None:
    result = host.txt2img(batch(1, 2, loopback=True))
    again = host.txt2img(unit(image=as_base64(Image.fromarray(pixels(result, 0)))))
    assert np.array_equal(pixels(result, 1), pixels(again))


def test_folders_are_read_in_order_and_results_keep_their_names(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for seed, name in ((1, "b"), (2, "a")):
        picture(seed).save(source / f"{name}.png")
    (source / "notes.txt").write_text("no picture")
    folder = unit(image=None, input_mode="batch", batch_images=str(source), output_dir=str(target))
    result = from_page(host, monkeypatch, folder)
    assert sorted(path.name for path in target.iterdir()) == ["a.png", "b.png"]
    assert len(result.images) == 1  # the page shows the last
    assert "2 pictures are in" in result.comments
    saved = np.asarray(Image.open(target / "b.png").convert("RGB"))
    assert np.array_equal(saved, pixels(result))
    monkeypatch.undo()
    assert np.array_equal(saved, pixels(host.txt2img(unit(image=as_base64(picture(1))))))


def test_folders_are_not_opened_for_clients(host: Host, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="its own page only"):
        host.txt2img(unit(image=None, input_mode="batch", batch_images=str(tmp_path)))


@pytest.mark.parametrize(("made", "words"), [(False, "cannot be read"), (True, "no pictures")])
def test_wrong_folders_stop_the_job(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool, words: str
) -> None:
    folder = tmp_path / "folder"
    if made:
        folder.mkdir()
    with pytest.raises(Exception, match=words):
        from_page(host, monkeypatch, unit(image=None, input_mode="batch", batch_images=str(folder)))


def test_merged_pictures_share_the_weight(host: Host) -> None:
    images = [as_base64(picture(seed)) for seed in (1, 2)]
    merged = host.txt2img(unit(image=None, input_mode="merge", images=images, weight=0.8))
    apart = host.txt2img(*(unit(image=image, weight=0.4) for image in images))
    assert np.array_equal(pixels(merged), pixels(apart))
    assert "Weight: 0.8" in merged.infotexts[0]


def test_each_unit_for_each_picture(host: Host) -> None:
    one, two = unit(image=as_base64(picture(1))), unit(image=as_base64(picture(2)))
    shared = host.txt2img(one, two, {"batch_option": 1}, batch_size=2)
    alone = [host.txt2img(each, batch_size=2) for each in (one, two)]
    for index in range(2):
        distance = np.abs(pixels(shared, index).astype(int) - pixels(alone[index], index)).max()
        assert distance <= 1
    assert "ControlNet Batch Option" in shared.infotexts[0]


def test_style_align_needs_no_unit_and_is_one_itself(host: Host) -> None:
    plain, aligned = host.txt2img(batch_size=2), host.txt2img({"style_align": True}, batch_size=2)
    assert not np.array_equal(pixels(plain), pixels(aligned))
    assert "ControlNet StyleAlign: True" in aligned.infotexts[0]
    assert "ControlNet 0" not in aligned.infotexts[0]
    own = host.txt2img(unit(image=None, model="None", module="style_align"), batch_size=2)
    assert "Module: style_align" in own.infotexts[0]
    for index in range(2):
        assert np.array_equal(pixels(own, index), pixels(aligned, index))


def test_style_align_takes_no_picture_from_the_units(host: Host) -> None:
    one, two = unit(image=as_base64(picture(1))), unit(image=as_base64(picture(2)))
    each = host.txt2img(one, two, {"batch_option": 1, "style_align": True}, batch_size=2)
    weighed = host.txt2img(
        {**one, "batch_weights": [1, 0]}, {**two, "batch_weights": [0, 1]}, {"style_align": True}, batch_size=2
    )
    for index in range(2):
        assert np.abs(pixels(each, index).astype(int) - pixels(weighed, index)).max() <= 1


def test_there_is_nothing_to_align_in_one_picture(host: Host) -> None:
    result = host.txt2img({"style_align": True})
    assert np.array_equal(pixels(result), pixels(host.txt2img()))
    assert "it makes the pictures of a batch alike, and there is one" in result.comments


# -- folders as they are -------------------------------------------------------------------------------------------


def folder_unit(source: Path, target: Path | str = "", **fields: Any) -> dict[str, Any]:
    return unit(image=None, input_mode="batch", batch_images=str(source), output_dir=str(target), **fields)


def test_results_are_told_apart_numbered_as_the_host_counts_and_junk_is_said_once(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for seed, name in enumerate(("2.png", "10.png", "10.jpg")):
        picture(seed).save(source / name)
    for name in ("._2.png", ".hidden.png", "Thumbs.db"):
        (source / name).write_bytes(b"junk")
    result = from_page(host, monkeypatch, folder_unit(source, target), n_iter=2)
    names = ["2", "2-1", "10.jpg", "10.jpg-1", "10.png", "10.png-1"]
    assert sorted(path.name for path in target.iterdir()) == sorted(f"{name}.png" for name in names)
    assert result.comments.count("passed over") == 1
    assert "3 files" in result.comments
    host.app.modules("shared").opts.data["controlnet_show_batch_images_in_ui"] = True
    try:
        shown = from_page(host, monkeypatch, folder_unit(source), n_iter=2)
    finally:
        host.app.modules("shared").opts.data["controlnet_show_batch_images_in_ui"] = False
    for place, name in enumerate(names):
        saved = Image.open(target / f"{name}.png")
        assert np.array_equal(np.asarray(saved.convert("RGB")), pixels(shown, place)), name
        assert "ControlNet 0" in saved.info["parameters"]


def test_an_error_costs_only_the_pictures_after_it(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("1.png", "2.png", "4.png"):
        picture(1).save(source / name)
    (source / "3.avif").write_bytes(b"damaged")
    with pytest.raises(Exception, match=r'the picture "3.avif" of the batch cannot be read'):
        from_page(host, monkeypatch, folder_unit(source, target))
    assert sorted(path.name for path in target.iterdir()) == ["1.png", "2.png"]


def test_a_result_that_cannot_be_saved_stops_the_batch(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        picture(seed).save(tmp_path / f"{seed}.png")

    def full(*_arguments: Any, **_settings: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(host.app.modules("images"), "save_image", full)
    with pytest.raises(Exception, match="No space left"):
        from_page(host, monkeypatch, folder_unit(tmp_path, tmp_path / "out"))


def test_what_another_script_changes_last_is_what_is_saved(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    picture(1).save(source / "1.png")
    runner = host.app.modules("scripts").scripts_txt2img
    original = type(runner).postprocess_image_after_composite

    def inverted(self: Any, p: Any, args: Any) -> None:
        original(self, p, args)
        args.image = Image.eval(args.image, lambda level: 255 - level)

    monkeypatch.setattr(type(runner), "postprocess_image_after_composite", inverted)
    result = from_page(host, monkeypatch, folder_unit(source, target))
    assert np.array_equal(np.asarray(Image.open(target / "1.png")), pixels(result))


@pytest.mark.parametrize("way", ["itself", "dots", "link"])
def test_results_must_not_overwrite_their_sources(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    picture(1).save(source / "1.png")
    before = (source / "1.png").read_bytes()
    (tmp_path / "link").symlink_to(source)
    target = {"itself": source, "dots": source / ".." / "in", "link": tmp_path / "link"}[way]
    with pytest.raises(Exception, match="the one that the pictures come from"):
        from_page(host, monkeypatch, folder_unit(source, target))
    assert (source / "1.png").read_bytes() == before


# -- img2img's own batch -------------------------------------------------------------------------------------------


def in_tab(
    host: Host, monkeypatch: pytest.MonkeyPatch, sources: Path, *units: Any, script: Any = None, **settings: Any
) -> Any:
    """The Batch tab of img2img over a folder, with units as the page has them."""
    module, scripts = host.app.modules("img2img"), host.app.modules("scripts").scripts_img2img
    processing, state = host.app.modules("processing"), host.app.modules("shared").state
    original = module.process_images

    def seeded(p: Any) -> Any:
        torch.manual_seed(0)  # the host draws the encoded source from the global generator
        return original(p)

    monkeypatch.setattr(module, "process_images", seeded)
    if script is not None:
        monkeypatch.setattr(type(scripts), "run", lambda _self, p, *_args: script(p, seeded))
    defaults = {"prompt": "a red heart", "seed": 11, "steps": 2, "width": 64, "height": 64, "cfg_scale": 4.0}
    p = processing.StableDiffusionProcessingImg2Img(
        **{**defaults, "sampler_name": "Euler", "denoising_strength": 0.6, "do_not_save_samples": True, **settings}
    )
    p.scripts = scripts
    p.script_args = host.app.script_args(True, {"ControlNet": units})
    state.begin(job="img2img")
    batch_tab.wrap()
    try:
        return module.process_batch(p, str(sources), "", "", p.script_args)
    finally:
        batch_tab.unwrap()
        state.end()
        assert not hasattr(module.process_batch, "controlnet_wrapper")
        assert "run" not in vars(scripts)
        monkeypatch.undo()


def a1111_loop(host: Host) -> Any:
    """A1111's own order of things: what cannot be read is passed over with a word on the console, hidden files too."""
    module, shared = host.app.modules("img2img"), host.app.modules("shared")

    def process_batch(p: Any, input: str, *_rest: Any) -> Any:
        files = sorted((str(path) for path in Path(input).iterdir()), key=shared.natural_sort_key)
        made: list[Any] = []
        for number, file in enumerate(files):
            shared.state.job = f"{number + 1} out of {len(files)}"
            try:
                p.init_images = [Image.open(file)] * p.batch_size
            except UnidentifiedImageError:
                continue
            made.append(host.app.modules("scripts").scripts_img2img.run(p, *p.script_args) or module.process_images(p))
        return made

    return process_batch


def test_pictures_that_the_host_passes_over_move_no_map(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, maps = frames(tmp_path / "in", range(50, 53)), frames(tmp_path / "maps", range(60, 63))
    (sources / "9.png").write_bytes(b"damaged")
    (sources / "._8.png").write_bytes(b"of macOS")
    shared = host.app.modules("shared")
    listed = sorted((str(path) for path in sources.iterdir()), key=shared.natural_sort_key)
    monkeypatch.setattr(shared, "walk_files", lambda *_arguments, **_settings: listed)
    monkeypatch.setattr(host.app.modules("img2img"), "process_batch", a1111_loop(host))
    made = in_tab(host, monkeypatch, sources, folder_unit(maps))
    assert len(made) == 2
    for result, number in zip(made, (0, 2), strict=True):
        assert np.array_equal(pixels(result), paired(host, 50 + number, 60 + number))


def frames(folder: Path, seeds: range) -> Path:
    """Pictures 8.png, 9.png, 10.png, ..., which text order would shuffle."""
    folder.mkdir()
    for number, seed in enumerate(seeds):
        picture(seed).save(folder / f"{8 + number}.png")
    return folder


def paired(host: Host, source: int, map_: int) -> Any:
    return pixels(host.img2img(unit(image=as_base64(picture(map_))), init_images=[picture(source)]))


def test_the_hosts_batch_takes_frame_i_with_map_i(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, maps = frames(tmp_path / "in", range(50, 53)), frames(tmp_path / "maps", range(60, 63))
    result = in_tab(host, monkeypatch, sources, folder_unit(maps, tmp_path / "out"))
    assert len(result.images) == 3
    for number in range(3):
        made = pixels(result, number)
        assert np.array_equal(made, paired(host, 50 + number, 60 + number))
        assert np.array_equal(made, np.asarray(Image.open(tmp_path / "out" / f"{8 + number}.png")))


def test_a_script_that_makes_a_frame_twice_takes_its_map_twice(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, maps = frames(tmp_path / "in", range(50, 52)), frames(tmp_path / "maps", range(60, 62))

    def twice(p: Any, process: Any) -> Any:
        return [process(copy(p)), process(copy(p))][1]

    result = in_tab(host, monkeypatch, sources, folder_unit(maps), script=twice)
    for number in range(2):
        assert np.array_equal(pixels(result, number), paired(host, 50 + number, 60 + number))


@pytest.mark.parametrize(("sources", "maps"), [(3, 2), (2, 3)])
def test_the_shorter_batch_decides_and_is_said(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: int, maps: int
) -> None:
    inputs, controls = frames(tmp_path / "in", range(sources)), frames(tmp_path / "maps", range(60, 60 + maps))
    result = in_tab(host, monkeypatch, inputs, folder_unit(controls))
    assert len(result.images) == 2
    assert f"{sources} pictures of img2img and {maps} of the units" in result.infotexts[0]


def test_units_without_a_folder_keep_their_picture_in_the_hosts_batch(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = frames(tmp_path / "in", range(50, 52))
    result = in_tab(host, monkeypatch, sources, unit(image=as_base64(picture(60))))
    first = [index for index, text in enumerate(result.infotexts) if "ControlNet 0" in text][:1]
    assert np.array_equal(pixels(result, first[0]), paired(host, 50, 60))


def test_loopback_in_the_hosts_batch_goes_on_from_the_frame_before(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, maps = frames(tmp_path / "in", range(50, 52)), frames(tmp_path / "maps", range(60, 62))
    result = in_tab(host, monkeypatch, sources, folder_unit(maps, loopback=True))
    again = host.img2img(unit(image=as_base64(Image.fromarray(pixels(result, 0)))), init_images=[picture(51)])
    assert np.array_equal(pixels(result, 1), pixels(again))


# -- prompts -------------------------------------------------------------------------------------------------------


class Interrogator:
    """Says how bright a picture is."""

    def interrogate(self, image: Image.Image) -> str:
        return f"a picture of brightness {np.asarray(image).mean():.0f}"


def test_empty_prompt_becomes_the_papers(host: Host) -> None:
    result = host.txt2img(unit(), {"prompt_mode": 1}, prompt="")
    assert result.infotexts[0].startswith(DEFAULT_PROMPT)
    assert "ControlNet Prompt Mode: Default prompt if empty" in result.infotexts[0]


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_typed_prompts_stay(host: Host, mode: int) -> None:
    assert host.txt2img(unit(), {"prompt_mode": mode}).infotexts[0].startswith("a red heart")


def test_caption_of_the_source(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.app.modules("shared"), "interrogator", Interrogator(), raising=False)
    source = Image.new("RGB", (64, 64), (40, 40, 40))
    result = host.txt2img(unit(image=as_base64(source)), {"prompt_mode": 2}, prompt="")
    assert result.infotexts[0].startswith("a picture of brightness 40")


def test_caption_of_a_first_result(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.app.modules("shared"), "interrogator", Interrogator(), raising=False)
    first = host.txt2img(unit(), prompt=DEFAULT_PROMPT)
    result = host.txt2img(unit(), {"prompt_mode": 3}, prompt="")
    assert result.infotexts[0].startswith(Interrogator().interrogate(first.images[0].convert("RGB")))


def test_edited_caption_is_taken(host: Host) -> None:
    result = host.txt2img(unit(), {"prompt_mode": 2, "caption": "a blue star"}, prompt="")
    assert result.infotexts[0].startswith("a blue star")


def test_without_an_interrogator_the_job_stops_and_says_so(host: Host) -> None:
    with pytest.raises(Exception, match="no interrogator"):
        host.txt2img(unit(), {"prompt_mode": 2}, prompt="")


def test_measured_results_are_listed_best_first(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import csv

    from tests.measure import maps

    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for seed, name in ((1, "a"), (5, "b"), (9, "c")):
        Image.fromarray(maps.smooth(64, 64, seed)).save(source / f"{name}.png")
    monkeypatch.setitem(host.app.modules("shared").opts.data, "controlnet_measure", True)
    folder = unit(
        image=None,
        module="canny",
        processor_res=64,
        input_mode="batch",
        batch_images=str(source),
        output_dir=str(target),
    )
    from_page(host, monkeypatch, folder)
    with (target / "adherence.csv").open(encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["picture", "adherence", "unit 0"]
    assert sorted(row[0] for row in rows) == ["a", "b", "c"]
    values = [float(row[1]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert [row[2] for row in rows] == [row[1] for row in rows]
