"""report.html: its structure; that it fetches nothing, escapes all names, repeats its bytes and stays small."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import auc, average_precision_score, roc_auc_score

import test
from AnomalyCLIP_lib.decisions import Threshold, Thresholds, decide
from AnomalyCLIP_lib.detector import Prediction
from generic_dataset_json.names import find_dataset
from metrics import ALL_METRICS
from pipeline.evaluation.pixel_histogram import PixelCurve
from pipeline.evaluation.results import Evaluation
from pipeline.output_folder import OutputFolder
from pipeline.reporting.observing import ScoredImage
from pipeline.reporting.outcomes import error, outcome
from pipeline.reporting.predictions import PredictionRow
from pipeline.reporting.report.charts import curve_chart, image_curves, score_histogram
from pipeline.reporting.report.gallery import LARGEST_REPORT, Gallery, by_error, byte_budget
from pipeline.reporting.report.page import Metrics, Report, render
from pipeline.reporting.report.thumbnails import Thumbnails, make_thumbnails

NASTY = '<script>alert("1")</script> & \'quoted\' "ä 傷.png'
THRESHOLDS = Thresholds(Threshold(0.5, "--threshold"), Threshold(0.4, "a source with <b> & more"))
VOID = {"meta", "link", "img", "input", "line", "polyline", "circle"}  # those of a chart close themselves


class Page(HTMLParser):
    """The elements of a page with their attributes, its text, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag, name="class", value=None):
        found = [attributes for element, attributes in self.elements if element == tag]
        return [a for a in found if value is None or value in (a.get(name) or "").split()]


def picture(size=(64, 48), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def a_map(size=(64, 48)):
    values = np.zeros((size[1], size[0]), np.float32)
    values[10:20, 10:30] = 0.9
    return values


def rows_of(scores_by_class):
    """Rows from {class: [(label, score), ...]}."""
    return [
        PredictionRow(f"{name}/{number}.png", name, label, decide(score, THRESHOLDS, a_map()))
        for name, pairs in scores_by_class.items()
        for number, (label, score) in enumerate(pairs)
    ]


def gallery_of(rows, most_cards=2000):
    names = [row.cls_name for row in rows]
    gallery = Gallery({name: names.count(name) for name in names}, most_cards)
    for position, row in enumerate(rows):
        own = picture(seed=position)
        size, nothing = own.size, Prediction(torch.zeros(()), torch.zeros(0, 0), 1)
        gallery.observe(
            ScoredImage(position, row.image_path, row.cls_name, row.label, row.decision, size, own, nothing, a_map())
        )
        if position + 1 == len(rows) or names[position + 1] != row.cls_name:
            gallery.end_class(row.cls_name)
    return gallery


def report_of(rows, level="image-pixel-level", values=None, curves=None, **changes):
    names = list(dict.fromkeys(row.cls_name for row in rows))
    classes = {name: {metric: 50.0 for metric in ALL_METRICS} | (values or {}) for name in names}
    intervals = {metric: (40.0, 61.5) for metric in ALL_METRICS}
    evaluation = Evaluation(
        classes,
        classes[names[0]],
        rows,
        dict.fromkeys(names, intervals),
        intervals,
        {name: {"with_mask": 0} for name in names},
        dict.fromkeys(names, curves),
    )
    content = {
        "title": "the dataset",
        "model": "the model",
        "thresholds": THRESHOLDS,
        "predictions": rows,
        "gallery": gallery_of(rows),
        "settings": {"seed": 111, "thresholds": {"image": {"value": 0.5}}},
        "command": "python test.py --data_path 'a b'",
        "metrics": Metrics(evaluation, level, find_dataset("mvtec"), "ViT-L/14@336px"),
    }
    return Report(**(content | changes))


TWO_CLASSES = {
    "plate": [(0, 0.05), (0, 0.7), (1, 0.9), (1, 0.2)],
    "cloth": [(0, 0.3), (0, 0.4), (1, 0.6), (1, 0.45)],
}
CURVE = PixelCurve(np.linspace(0, 1, 9), np.linspace(0, 1, 9) ** 0.5, np.linspace(1, 0.2, 9))


@pytest.fixture(scope="module")
def text():
    return render(report_of(rows_of(TWO_CLASSES), curves=CURVE))


def test_the_page_has_its_parts(text):
    page = Page(text)
    assert [attributes["id"] for tag, attributes in page.elements if tag == "section" and "id" in attributes] == [
        *("summary", "metrics", "curves", "class-0", "class-1", "gallery", "settings")
    ]
    targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert all(link["href"][1:] in targets for link in page.all("a"))
    assert len(page.all("table", value="metrics")) == 2 and len(page.all("svg")) == 6
    assert "40.0 – 61.5" in page.text and "--data_path 'a b'" in page.text and "thresholds: image: value" in page.text
    assert "the paper, MVTec AD" in page.text and "91.5" in page.text and "no yardstick" in page.text
    assert "0.4 is anomalous (a source with <b> & more)" in page.text.replace("  ", " ")


def test_names_are_unique_and_nothing_is_fetched(text):
    page = Page(text)
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text


def test_cards_are_sorted_by_error_and_say_their_outcome(text):
    cards = Page(text).all("article", value="card")
    outcomes = [(card["data-class"], card["data-outcome"]) for card in cards]
    assert outcomes[:3] == [("plate", "false-negative"), ("plate", "false-positive"), ("cloth", "false-negative")]
    assert len(cards) == 8 and outcomes[-1] == ("plate", "true-negative")
    counted = Page(text).all("b", "data-count")
    assert {a["data-count"] for a in counted if "data-count" in a} == {
        *("false-negative", "false-positive", "true-positive", "true-negative")
    }


def test_pictures_are_webp_with_their_sizes(text):
    for image in Page(text).all("img"):
        content = base64.b64decode(image["src"].removeprefix("data:image/webp;base64,"))
        opened = Image.open(io.BytesIO(content))
        assert opened.format == "WEBP" and opened.size == (64, 48)
        assert (image["width"], image["height"], image["loading"]) == ("64", "48", "lazy")


@pytest.mark.parametrize("nasty", [NASTY, "a\udcff.png"])
def test_nasty_names_are_escaped(tmp_path, nasty):
    row = PredictionRow(nasty, nasty, 1, decide(0.2, THRESHOLDS))
    report = report_of([row], title=nasty, model=nasty, notices=[nasty], command=nasty, settings={nasty: nasty})
    OutputFolder(tmp_path).write_text("report.html", render(report))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    shown = nasty.encode("utf-8", "backslashreplace").decode()
    assert len(page.all("script")) == 1
    assert page.text.count(" ".join(shown.split())) >= 8
    assert page.all("article")[0]["data-class"] == shown
    assert shown in [option.get("value") for option in page.all("option")]


def test_the_same_run_gives_the_same_text(text):
    assert render(report_of(rows_of(TWO_CLASSES), curves=CURVE)) == text


# --- what is missing ---------------------------------------------------------------------------------------------


def test_one_label_only():
    undefined = {"image_auroc": None, "image_ap": None}
    page = Page(render(report_of(rows_of({"plate": [(1, 0.9), (1, 0.2)]}), values=undefined)))
    assert "one label only" in page.text and "All images are anomalous" in page.text
    assert len(page.all("svg")) == 1  # the histogram


def test_no_masks_and_no_pixel_level():
    undefined = {metric: None for metric in ALL_METRICS if metric.startswith("pixel")}
    rows = rows_of(TWO_CLASSES)
    assert "– no masks" in Page(render(report_of(rows, values=undefined))).text
    page = Page(render(report_of(rows, "image-level", undefined)))
    assert "left out by --metrics image-level" in page.text and "pixel level" not in page.text


def test_pictures_without_labels():
    rows = [PredictionRow(f"{n}.png", decision=decide(n / 10, THRESHOLDS, a_map())) for n in (2, 9, 6)]
    page = Page(render(report_of(rows, metrics=None)))
    assert [card["data-outcome"] for card in page.all("article")] == ["anomalous", "anomalous", "normal"]
    assert page.all("table", value="metrics") == [] and len(page.all("svg")) == 1
    assert "called anomalous 2" in page.text and "paper" not in page.text


def test_without_a_gallery():
    page = Page(render(report_of(rows_of(TWO_CLASSES), gallery=None)))
    assert page.all("article") == [] and page.all("form") == []


# --- outcomes, charts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label, score, name, distance",
    [
        (0, 0.7, "false-positive", 0.2),
        (0, 0.5, "false-positive", 0.0),  # the threshold itself is anomalous
        (0, 0.1, "true-negative", -0.4),
        (1, 0.1, "false-negative", 0.4),
        (1, 0.8, "true-positive", -0.3),
        (None, 0.8, "anomalous", 0.3),
        (None, 0.1, "normal", -0.4),
    ],
)
def test_outcomes_and_errors(label, score, name, distance):
    decision = decide(score, THRESHOLDS)
    assert outcome(label, decision.called) == name
    assert error(label, decision) == pytest.approx(distance)


def test_image_curves_are_sklearns():
    labels, scores = [0, 0, 1, 1, 0, 1], [0.1, 0.7, 0.7, 0.9, 0.3, 0.2]
    roc, (recall, precision) = image_curves(labels, scores)
    assert auc(*roc) == pytest.approx(roc_auc_score(labels, scores))
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(average_precision_score(labels, scores))
    assert image_curves([1, 1], [0.1, 0.2]) is None


def test_a_chart_is_small_whatever_its_number_of_points():
    grid = np.linspace(0, 1, 50_000)
    chart = curve_chart("ROC", "", "x", "y", (grid, grid**0.3), (grid, grid**0.1), (0.2, 0.5))
    points = {kind: text.split() for kind, text in chart.lines}
    assert all(len(part) <= 121 for part in points.values())
    for kind in ("image-level", "pixel-level"):
        assert (points[kind][0], points[kind][-1]) == ("44,164", "241,8")  # the ends of the curves are kept


@pytest.mark.parametrize(
    "counts, labels", [(1, ["0", "1"]), (28, ["0", "10", "20", "30"]), (1341, ["0", "500", "1000", "1500"])]
)
def test_ticks_of_histograms_are_round(counts, labels):
    chart = score_histogram("", [0.01] * counts, [], 0.5, unlabelled=True)
    assert [label for _, label in chart.y_ticks] == labels
    assert chart.y_ticks[-1][0] >= 8 - 0.05


# --- how large the report gets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(518, 518), (900, 120), (3, 700), (1, 1)])
@pytest.mark.parametrize("budget", [800, 5000, 40_000])
def test_thumbnails_keep_their_budget_and_aspect(size, budget):
    noise = picture((200, 200))
    values = np.random.default_rng(1).random((size[1], size[0]), dtype=np.float32)
    thumbnails = make_thumbnails(noise, size, values, 0.5, budget)
    assert thumbnails.heat_map is not None
    assert len(thumbnails.picture) + len(thumbnails.heat_map) <= budget
    width, height = thumbnails.size
    assert abs(width * size[1] - height * size[0]) <= max(size) and width <= size[0] and height <= size[1]


def test_a_dataset_of_the_size_of_mvtec_stays_within_15_mb(monkeypatch):
    """With every card as large as it may be: the pictures of one are as many bytes as the budget allows."""
    budget = byte_budget(1725, 15)
    full = Thumbnails((128, 128), b"\xff" * (budget // 2), b"\xff" * (budget // 2))
    monkeypatch.setattr("pipeline.reporting.report.gallery.make_thumbnails", lambda *_: full)
    rng = np.random.default_rng(0)
    rows = [
        PredictionRow(f"class_{number % 15}/test/broken_large/{number}.png", f"class_{number % 15}", label, decision)
        for number in range(1725)
        for label, decision in [(number % 2, decide(float(rng.random()), THRESHOLDS))]
    ]
    rows.sort(key=lambda row: row.cls_name)
    rough = PixelCurve(np.linspace(0, 1, 200), np.linspace(0, 1, 200), rng.random(200))
    size = len(render(report_of(rows, curves=rough)).encode())
    assert 0.8 * LARGEST_REPORT < size < LARGEST_REPORT


def test_large_runs_keep_the_worst_of_each_class():
    rng = np.random.default_rng(0)
    rows = rows_of(
        {name: [(int(rng.integers(2)), float(rng.random())) for _ in range(n)] for name, n in (("a", 40), ("b", 4))}
    )
    gallery = gallery_of(rows, most_cards=20)
    kept = {name: [card for card in by_error(gallery.cards) if card.class_name == name] for name in "ab"}
    assert len(kept["b"]) == 4 and len(kept["a"]) == 16
    errors = sorted((error(row.label, row.decision) for row in rows if row.cls_name == "a"), reverse=True)
    assert [card.error for card in kept["a"]] == errors[:16]
    page = Page(render(report_of(rows, gallery=gallery)))
    assert "24 of the 44 images are left out" in page.text


# --- through test.py ---------------------------------------------------------------------------------------------


def run_dataset(tiny_files, tiny_dataset, folder, *more):
    model = ["--backbone", str(tiny_files / "tiny.json"), "--pretrained", str(tiny_files / "tiny.safetensors")]
    flags = ["--checkpoint_path", "handwritten", "--device", "cpu", "--workers", "0", "--save_path", str(folder)]
    return test.main(["--data_path", str(tiny_dataset), *model, *flags, *more])


def test_a_run_on_a_dataset_writes_it_and_repeats_it(tiny_files, tiny_dataset, tmp_path):
    assert run_dataset(tiny_files, tiny_dataset, tmp_path) == 0
    first = (tmp_path / "report.html").read_bytes()
    page = Page(first.decode())
    assert len(page.all("article")) == 12 and len(page.all("img")) == 24
    assert (
        "handwritten prompts" in page.text and "Settings" in page.text and "--checkpoint_path handwritten" in page.text
    )
    sizes = {(image["width"], image["height"]) for image in page.all("img")}
    assert sizes == {("52", "40")}
    assert run_dataset(tiny_files, tiny_dataset, tmp_path) == 0
    assert (tmp_path / "report.html").read_bytes() == first


def test_no_report(tiny_files, tiny_dataset, tmp_path):
    assert run_dataset(tiny_files, tiny_dataset, tmp_path, "--no_report", "--metrics", "image-level") == 0
    assert not (tmp_path / "report.html").exists() and (tmp_path / "metrics.json").exists()
    assert "report.html" not in (tmp_path / "log.txt").read_text()
