"""The web page without a browser: what its handlers answer, its limits, and what app.py refuses to serve."""

import csv
import io
import re
import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image

import AnomalyCLIP_lib
import app
import test
from AnomalyCLIP_lib import InputError
from AnomalyCLIP_lib.decisions import Threshold, Thresholds, find_boxes, map_values
from pipeline.reporting.pictures import outline, overlay
from pipeline.web import markup, scoring
from pipeline.web.handlers import NOT_KEPT, SLIDER_SOURCE, Handlers, Results
from pipeline.web.scoring import DISPLAYED_SIDE, MOST_FILES, Refused, Scorer

ASSETS = REPOSITORY / "docs" / "images"
NAMES = ("washer_damaged.png", "woven_damaged.png", "capsule_intact.png")
SLIDERS = (0.5, 0.5, 0.75, True)  # image threshold, pixel threshold, opacity, outline


@pytest.fixture(scope="module")
def model():
    return AnomalyCLIP_lib.load("demo", device="cpu")


@pytest.fixture
def handlers(model):
    return Handlers(Scorer(model), model.thresholds(0.5, 0.5))


@pytest.fixture
def uploads(tmp_path):
    """Copies of sample pictures where Gradio would keep them, as the handlers get them."""
    folder = tmp_path / "a5b1"
    folder.mkdir()
    return [str(shutil.copy(ASSETS / name, folder / name)) for name in NAMES]


@pytest.fixture
def results(handlers, uploads):
    return handlers.score(uploads, None)[0]


@pytest.fixture
def calls(model, monkeypatch):
    """How many images the model is given, one entry a call."""
    made = []
    original = model.score

    def counted(images, *names, **options):
        made.append(len(images))
        return original(images, *names, **options)

    monkeypatch.setattr(model, "score", counted)
    return made


def shown_picture(html):
    return re.search(r'src="(data:image/jpeg;base64,[^"]+)"', html)[1]


# --- scoring -----------------------------------------------------------------------------------------------------


def test_scores_and_maps_are_those_of_predict(model, results, uploads):
    prediction = model.predict(uploads)
    for one, score, anomaly_map in zip(
        results.scored, prediction.anomaly_score, prediction.anomaly_map.numpy(), strict=True
    ):
        assert one.anomaly_score == pytest.approx(score.item(), abs=1e-5)
        np.testing.assert_allclose(one.prediction.anomaly_map.numpy(), anomaly_map, atol=1e-5)
    assert [one.name for one in results.scored] == list(NAMES)


@pytest.mark.parametrize("size", [(60, 900), (900, 60), (16, 16), (1, 1), (2000, 1500)])
def test_pictures_of_any_shape_are_scored_and_shown(handlers, tmp_path, size):
    path = tmp_path / "any.png"
    Image.new("L", size, 120).save(path)
    now, _ = handlers.score([str(path)], None)
    (one,) = now.scored
    height, width = one.displayed.shape[:2]
    assert one.size == size and max(width, height) == min(DISPLAYED_SIDE, 4 * max(size))
    verdict, picture, _ = handlers.show(now, 0, *SLIDERS)
    assert f"{size[0]} × {size[1]} pixels" in verdict and f'width="{width}" height="{height}"' in picture


def test_files_that_were_scored_are_not_scored_again(handlers, uploads, calls):
    first, _ = handlers.score(uploads[:2], None)
    second, _ = handlers.score(uploads[1:], first)
    assert calls == [1, 1, 1]
    assert second.files[0] is first.files[1] and [one.name for one in second.files] == list(NAMES[1:])


def test_a_corrupt_file_is_told_by_its_name_and_the_others_are_scored(handlers, uploads, tmp_path):
    bad, empty = tmp_path / "bad.png", tmp_path / "empty.png"
    bad.write_bytes(b"nonsense")
    empty.write_bytes(b"")
    half = tmp_path / "half.png"
    half.write_bytes((ASSETS / NAMES[0]).read_bytes()[:5000])
    gone = tmp_path / "gone.png"
    now, _ = handlers.score([str(path) for path in (uploads[0], bad, empty, half, gone, uploads[1])], None)
    assert [one.name for one in now.scored] == list(NAMES[:2])
    assert [one.name for one in now.refused] == ["bad.png", "empty.png", "half.png", "gone.png"]
    for refused in now.refused:
        assert refused.sentence.startswith(refused.name) and str(tmp_path) not in refused.sentence


def test_too_many_pixels_are_refused_before_they_are_decoded(handlers, uploads, monkeypatch):
    monkeypatch.setattr(scoring, "MOST_PIXELS", 256 * 256 - 1)
    monkeypatch.setattr(scoring, "read_image", lambda path: pytest.fail("was decoded"))
    now, _ = handlers.score(uploads[:1], None)
    assert "256 x 256 pixels" in now.refused[0].sentence and now.refused[0].sentence.startswith(NAMES[0])


def test_more_files_than_allowed_are_told_and_left_out(handlers, tmp_path):
    paths = []
    for number in range(MOST_FILES + 3):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (8, 8)).save(paths[-1])
    now, sentences = handlers.score(paths, None)
    assert len(now.files) == MOST_FILES and "last 3" in sentences[0]


def test_scores_that_are_not_finite_are_told(model, uploads, monkeypatch):
    scorer = Scorer(model)
    broken = torch.full_like(model.text_features(), torch.nan)
    monkeypatch.setattr(model, "text_features", lambda _: broken)
    refused = scorer.score(Path(uploads[0]))
    assert isinstance(refused, Refused) and "not finite" in refused.sentence and "a5b1" not in refused.sentence


def test_two_people_at_once_each_get_their_own(model, uploads, monkeypatch):
    original, inside, most = model.score, [], []

    def watched(*arguments, **options):
        inside.append(threading.get_ident())
        most.append(len(inside))
        answer = original(*arguments, **options)
        inside.remove(threading.get_ident())
        return answer

    monkeypatch.setattr(model, "score", watched)
    handlers = Handlers(Scorer(model), model.thresholds())
    alone = {path: handlers.scorer.score(Path(path)).anomaly_score for path in uploads}
    both = (uploads * 2, uploads[::-1])
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda paths: handlers.score(paths, None)[0], both * 3))
    assert max(most) == 1  # the model never computes for two at a time
    for paths, now in zip(both * 3, answers, strict=True):
        expected = list(dict.fromkeys(paths))
        assert [str(one.path) for one in now.scored] == expected
        assert [one.anomaly_score for one in now.scored] == [alone[path] for path in expected]


# --- sliders -----------------------------------------------------------------------------------------------------


def test_sliders_draw_anew_without_the_model(handlers, results, calls):
    shown = {handlers.show(results, 0, *at) for at in (SLIDERS, (0.5, 0.2, 0.75, True), (0.5, 0.5, 0.1, True))}
    pictures = {shown_picture(picture) for _, picture, _ in shown}
    assert len(pictures) == 3 and calls == []
    without = handlers.show(results, 0, 0.5, 0.5, 0.0, False)[1]
    assert shown_picture(without) not in pictures and "outlined" not in without


def test_the_verdict_is_that_of_the_map_at_the_pictures_size(handlers, results):
    one = results.scored[0]
    values = map_values(one.prediction.anomaly_map.numpy(), one.prediction.layers, one.size)
    for threshold in (0.1, 0.3, 0.7):
        verdict = handlers.show(results, 0, 0.5, threshold, 0.75, True)[0]
        reached = values >= np.float32(threshold)
        assert f"{100 * reached.mean():.1f} %" in verdict
        count = len(find_boxes(reached))
        assert f"<strong>{count} region{'s' if count > 1 else ''}</strong>" in verdict
    assert "<strong>None</strong> of its" in handlers.show(results, 0, 0.5, 1.0, 0.75, True)[0]


def test_the_image_threshold_flips_the_decision(handlers, results):
    score = results.scored[2].anomaly_score  # an intact capsule
    for threshold, decision in ((score - 0.01, "anomalous"), (score + 0.01, "normal")):
        verdict, _, overview = handlers.show(results, 2, threshold, 0.5, 0.75, True)
        assert f'class="decision {decision}"' in verdict and SLIDER_SOURCE in verdict
        assert overview.count("<tr>") == 1 + len(NAMES)
    assert "2 anomalous, 1 normal" in overview


def test_a_slider_left_alone_keeps_the_checkpoints_exact_threshold(model):
    stored = Thresholds(Threshold(0.48731, "checkpoint: found on x"), Threshold(1.0000001, "checkpoint: found on x"))
    handlers = Handlers(Scorer(model), stored)
    assert handlers.at_sliders(0.48731, 1.0) == stored
    moved = handlers.at_sliders(0.49, 1.0)
    assert moved.image == Threshold(0.49, SLIDER_SOURCE) and moved.pixel == stored.pixel


def test_an_out_of_date_choice_shows_the_last_picture(handlers, results):
    assert NAMES[2] in handlers.show(results, 9, *SLIDERS)[0]


def test_results_that_were_let_go_are_told(handlers):
    assert NOT_KEPT in handlers.show(None, 0, *SLIDERS)[0]
    for save in (
        lambda: handlers.table(None, 0.5, 0.5),
        lambda: handlers.heat_map(None, 0, 0.5, 0.75, True),
        lambda: handlers.anomaly_map(None, 0),
    ):
        with pytest.raises(InputError, match="not kept"):
            save()


def test_names_cannot_bring_markup_into_the_page(handlers, results):
    name = '<img src=x onerror="alert(1)">&.png'
    named = Results((*(replace(one, name=name) for one in results.scored), Refused(name, Path(name), name)))
    verdict, picture, overview = handlers.show(named, 0, *SLIDERS)
    trouble = markup.problems(named.refused)
    for html in (verdict, picture, overview, trouble):
        assert "<img src=x" not in html and "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;&amp;.png" in html


# --- downloads ---------------------------------------------------------------------------------------------------


def test_the_table_is_that_of_test_py(handlers, results, uploads, tmp_path):
    arguments = ["--image", *uploads, "--backbone", "demo", "--save_path", str(tmp_path / "out")]
    assert test.main([*arguments, "--threshold", "0.5", "--pixel_threshold", "0.5", "--device", "cpu"]) == 0
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        expected = sorted(csv.DictReader(file), key=lambda row: Path(row["image_path"]).name)
    refused = Refused("bad.png", tmp_path / "bad.png", "bad.png is empty; copy it again.")
    name, content = handlers.table(Results((*results.files, refused)), 0.5, 0.5)
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert name == "predictions.csv" and rows[-1]["error"] == refused.sentence and rows[-1]["anomaly_score"] == ""
    rows = sorted(rows[:-1], key=lambda row: row["image_path"])
    assert [row["image_path"] for row in rows] == sorted(NAMES)
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for column in ("decision", "threshold", "threshold_source", "cls_name", "label", "error"):
            assert row[column] == other[column]
        for column in ("anomaly_score", "map_max", "area_fraction"):
            assert float(row[column]) == pytest.approx(float(other[column]), abs=1e-4)


def test_the_saved_picture_is_what_is_shown_at_its_own_size(handlers, results):
    one = results.scored[0]
    name, content = handlers.heat_map(results, 0, 0.4, 0.6, True)
    values = map_values(one.prediction.anomaly_map.numpy(), one.prediction.layers, one.size)
    drawn = overlay(Image.open(one.path).convert("RGB"), values, 0.6)
    assert name == "washer_damaged_heat_map.png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), outline(drawn, values, 0.4))
    without = handlers.heat_map(results, 0, 0.4, 0.6, False)[1]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(without))), drawn)


def test_the_saved_map_is_the_models(handlers, results):
    name, content = handlers.anomaly_map(results, 1)
    assert name == "woven_damaged.npy"
    np.testing.assert_array_equal(np.load(io.BytesIO(content)), results.scored[1].prediction.anomaly_map)


def test_an_upload_that_was_deleted_is_told(handlers, results):
    results.scored[0].path.unlink()
    with pytest.raises(InputError, match=r"^washer_damaged.png has been deleted"):
        handlers.heat_map(results, 0, 0.5, 0.75, True)


# --- the page ----------------------------------------------------------------------------------------------------


def test_the_page_serves_no_interface_for_programs(model, monkeypatch):
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    pytest.importorskip("gradio", reason="Gradio is not installed (pip install -e '.[app]')")
    from pipeline.web import interface

    page = interface.build(Scorer(model), model.thresholds(), "because", [ASSETS / NAMES[0]])
    assert page.get_api_info()["named_endpoints"] == {} and page.get_api_info()["unnamed_endpoints"] == {}
    options = interface.launch_options([])
    assert options["share"] is False and options["max_file_size"] == "20mb"
    assert "http" not in options["css_paths"].read_text()
    assert str(model.provenance.checkpoint.path) not in str(page.get_config_file())


def test_the_page_says_which_model_it_uses_and_why_but_no_folders(model):
    html = markup.introduction(model, "because <b>")
    assert "not the paper&#x27;s model" in html and "(because &lt;b&gt;)" in html and "prompts.pth" in html
    assert str(model.provenance.checkpoint.path) not in html


# --- what is not served ------------------------------------------------------------------------------------------


def test_without_gradio_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -e"):
        app.main([])


@pytest.mark.parametrize("host", ["127.0.0.1", "203.0.113.7", "no such host"])
def test_a_port_or_host_that_cannot_be_used_is_named(host):
    pytest.importorskip("gradio", reason="Gradio is not installed (pip install -e '.[app]')")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {taken} at --host {host}"):
            app.main(["--backbone", "demo", "--device", "cpu", "--host", host, "--port", str(taken)])


@pytest.mark.parametrize("flags", [("--port", "0"), ("--port", "70000"), ("--threshold", "2"), ("--nonsense",)])
def test_wrong_flags_end_with_exit_code_2(flags):
    with pytest.raises(SystemExit) as ended:
        app.main(list(flags))
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--checkpoint_path", "nowhere.pth"), "nowhere.pth does not exist"),
        (("--backbone", "demo", "--image_size", "100"), "100"),
        (("--false_alarm_rate", "0.1"), "--calibrate"),
        (
            ("--backbone", "demo", "--checkpoint_path", "handwritten", "--threshold", "checkpoint"),
            "stores no thresholds",
        ),
    ],
)
def test_nothing_is_served_where_the_flags_do_not_fit(flags, sentence, monkeypatch, capsys):
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: "there")
    with pytest.raises(InputError, match=sentence):
        app.main(["--device", "cpu", *flags])
    assert "http" not in capsys.readouterr().err
