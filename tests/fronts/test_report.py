"""The HTML report: its content against the front, its safety, and what is missing from a run folder."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from moevoprune import FeatureSet, Front, HeadSettings, InputError, PruningProblem, evolve
from moevoprune.cli.main import main
from moevoprune.fronts.ensemble_study import study_ensembles
from moevoprune.fronts.member_maps import MemberMaps
from moevoprune.fronts.predictions import Predictions
from moevoprune.fronts.report import page as page_module
from moevoprune.fronts.report import write_report
from moevoprune.fronts.report.chart import make_scale
from moevoprune.fronts.run_folder import ABOUT
from moevoprune.fronts.wording import short_number
from moevoprune.heads.head import TrainedHead

EVIL = "</script><img src=x onerror=alert(1)>"
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """Tags with their attributes, text of scripts and styles, headings and visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self.raw.append((tag, ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if self._open and self._open[-1] in ("script", "style"):
            self.raw[-1] = (self.raw[-1][0], self.raw[-1][1] + data)
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def data(self):
        return json.loads(next(text for tag, text in self.raw if tag == "script"))


@pytest.fixture(scope="module")
def front(small_features, quick_head):
    return evolve(PruningProblem(small_features, head=quick_head, cv=3, seed=1), pop_size=10, n_gen=4, seed=1)


@pytest.fixture
def run(front, tmp_path):
    return _save(front, tmp_path / "run")


@pytest.fixture
def page(run, tmp_path):
    return Page(write_report([run], tmp_path / "report.html"))


def _save(front: Front, folder: Path) -> Path:
    front.save(folder)
    (folder / "config.toml").write_text('seed = 1\n[search]\nalgorithm = "guided"\npop = 10\ngens = 4\n')
    record = {"moevoprune": "0.1.0", "seed": 1, "evaluations": 40, "seconds": 2.5, "data": {"name": "small"}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def _report(front: Front, tmp_path: Path, name: str = "run") -> Page:
    return Page(write_report([_save(front, tmp_path / name)], tmp_path / f"{name}.html"))


def _cells(mask, n_cells):
    packed = np.frombuffer(base64.b64decode(mask["cells"]), np.uint8).reshape(-1, mask["stride"])
    bits = np.unpackbits(packed, axis=1)[:, : n_cells * mask["depth"]].reshape(len(packed), n_cells, -1)
    return bits @ (1 << np.arange(mask["depth"])[::-1])


def test_numbers_of_all_members_are_the_front_s(page, front):
    (view,) = page.data["views"]
    columns = {column["label"]: column["texts"] for column in view["columns"]}
    rows = front.to_rows()
    assert columns["active features"] == [str(row["active"]) for row in rows]
    assert columns["accuracy"] == [short_number(row["accuracy"]) for row in rows]
    assert columns["CKA"] == [short_number(row["cka"]) for row in rows]
    assert columns["test accuracy"] == [short_number(row["test_accuracy"]) for row in rows]
    assert len(view["labels"]) == len(front) + 1
    assert view["knee"] == front.knee()
    assert "knee" in view["labels"][front.knee()]
    assert "best accuracy" in view["labels"][front.best("accuracy")]
    knee = front.knee()
    assert (
        f"{len(front)} heads; the knee keeps {front.active[knee]} of 14 features and has "
        f"{short_number(front.test[knee])} test accuracy; the unpruned head has {short_number(front.dense_test)}."
    ) in page.text
    assert "10 generations" not in page.text
    assert "4 generations of 10; 40 masks evaluated in 2 s" in page.text


def test_masks_are_the_front_s(page, front):
    mask = page.data["views"][0]["mask"]
    assert mask["groups"] == [{"label": "features", "count": 14, "columns": 8}]
    np.testing.assert_array_equal(_cells(mask, 14)[:-1], front.masks)
    assert _cells(mask, 14)[-1].all()
    assert mask["summaries"][0] == f"{front.active[0]} of 14 features"


def test_confusion_matrices_are_scikit_learn_s(page, front, small_features):
    test, validation = page.data["views"][0]["confusions"]
    heads = [*front.heads, front.dense_head]
    for member, head in enumerate(heads):
        expected = confusion_matrix(small_features.y_test, head.predict(small_features.X_test), labels=[0, 1, 2])
        assert test["counts"][member] == expected.ravel().tolist()
        assert test["captions"][member] == f"Test rows: {np.trace(expected)} of 45 right"
        right = np.trace(np.reshape(validation["counts"][member], (3, 3)))
        values = [*front.column("accuracy"), front.dense_values[0]]
        assert right / 96 == pytest.approx(values[member], abs=1e-9)


def test_points_are_where_their_values_are(page, front):
    view = page.data["views"][0]
    sizes = np.append(front.active, front.n_bits)
    across, up = view["scales"][view["across"]], view["scales"][view["up"]]
    assert up["label"] == "Accuracy, validation"
    for scale, values in (
        (across, np.log10(sizes)),
        (up, np.append(front.column("accuracy"), front.dense_values[0])),
    ):
        # a straight line through all points, and through the ticks
        slope, start = np.polyfit(values, scale["places"], 1)
        np.testing.assert_allclose(scale["places"], start + slope * values, atol=2e-4)
        marks = np.array([float(label.replace(",", "")) for _, label in scale["ticks"]])
        marks = np.log10(marks) if scale is across else marks
        np.testing.assert_allclose([place for place, _ in scale["ticks"]], start + slope * marks, atol=1e-3)
    for member in up["stairs"]:
        smaller = front.active <= front.active[member]
        assert front.column("accuracy")[smaller].max() == front.column("accuracy")[member]
    points = [
        tag for tag in page.all("g") if (tag.get("class") or "").startswith("point ") and "data-member" in tag
    ]
    left, top, width, height = view["box"]
    for point, x, y in zip(points, across["places"], up["places"], strict=True):
        place = [float(value) for value in re.findall(r"[\d.]+", point["transform"])]
        assert place == pytest.approx([left + x * width, top + (1 - y) * height], abs=0.06)


def test_scales_of_odd_values():
    same = make_scale("x", "", np.array([2.0, 2.0]))
    assert same.places == [0.5, 0.5]
    holes = make_scale("x", "", np.array([1.0, np.nan, 3.0, -np.inf]))
    assert holes.places[1] is None
    assert holes.places[3] is None
    assert 0 < holes.places[0] < holes.places[2] < 1
    assert make_scale("x", "", np.full(3, np.nan)).places == [None] * 3
    zero = make_scale("x", "", np.array([0.0, 200.0]), whole=True, may_be_logarithmic=True)
    assert zero.ticks[0][1] == "0"


@pytest.mark.parametrize(("encoding", "groups"), [("neurons", 1), ("features+neurons", 2)])
def test_masks_of_hidden_units(encoding, groups, small_features, quick_head, tmp_path):
    problem = PruningProblem(small_features, encoding=encoding, head=quick_head, cv=2, seed=1)
    front = evolve(problem, pop_size=6, n_gen=2, seed=1)
    page = _report(front, tmp_path)
    mask = page.data["views"][0]["mask"]
    assert len(mask["groups"]) == groups
    np.testing.assert_array_equal(_cells(mask, front.n_bits)[:-1], front.masks)


def test_masks_of_connections_show_the_share_that_every_input_keeps(small_features, quick_head, tmp_path):
    problem = PruningProblem(small_features, encoding="connections", head=quick_head, cv=2, seed=1)
    front = evolve(problem, pop_size=6, n_gen=2, seed=1)
    mask = _report(front, tmp_path).data["views"][0]["mask"]
    shares = front.masks.reshape(len(front), 14, 8).mean(axis=2)
    np.testing.assert_array_equal(_cells(mask, 14)[:-1], np.ceil(15 * shares))


def test_names_of_others_are_text(front, tmp_path):
    evil = replace(front, class_names=(EVIL, "<b>b</b>", "c & 'd' \"e\" \u202e"))
    folder = tmp_path / "a<b>&'\"c"
    _save(evil, folder)
    record = {"data": {"name": EVIL}, "seed": EVIL, "packages": {EVIL: EVIL}, "extraction": {"backbone": [EVIL]}}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.toml").write_text(f'[data]\nimages = "{EVIL}"\n')
    page = Page(write_report([folder], tmp_path / "report.html"))
    assert [tag for tag, _ in page.raw] == ["style", "script", "script"]
    assert not page.all("b")
    assert all((image["src"] or "").startswith("data:") for image in page.all("img"))
    assert page.text.count(EVIL) > 3
    assert page.data["views"][0]["classes"] == [EVIL, "<b>b</b>", "c & 'd' \"e\" ?"]
    assert page.unbalanced == []


def test_nothing_is_loaded_and_nothing_else_runs(page):
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href", "action", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    (policy,) = [tag["content"] for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    (style,) = [text for tag, text in page.raw if tag == "style"]
    _, script = [text for tag, text in page.raw if tag == "script"]
    for text, directive in ((style, "style-src"), (script, "script-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert not re.search(r"url\(|@import|https?:(?!//www\.w3\.org/2000/svg)", style + script)


def test_it_can_be_read_without_seeing_it(page):
    html = page.all("html")[0]
    assert html["lang"] == "en"
    assert len(page.all("main")) == len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in page.tags:
        for name in ("aria-labelledby", "href"):
            target = attributes.get(name) or ""
            if name == "aria-labelledby" and target:
                assert target in identifiers
            elif target.startswith("#"):
                assert target[1:] in identifiers
    assert all(image.get("alt") for image in page.all("img"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) > 4
    assert page.unbalanced == []


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast_of_text(theme):
    style = (Path(page_module.__file__).parent / "report.css").read_text(encoding="utf-8")
    colors = {
        name: pair[theme]
        for name, *pair in re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", style)
    }

    def luminance(color):
        channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    def contrast(one, other):
        low, high = sorted((luminance(colors[one]), luminance(colors[other])))
        return (high + 0.05) / (low + 0.05)

    for text in ("ink", "muted", "link"):
        for ground in ("page", "card", "sunk"):
            assert contrast(text, ground) >= 4.5, (text, ground)
    for ground in [f"{kind}{level}" for kind in ("hit", "miss") for level in range(1, 5)]:
        assert contrast("ink", ground) >= 4.5, ground
    # shapes: WCAG asks for 3
    for shape in ("stair", "focus", "ink"):
        assert contrast(shape, "card") >= 3, shape


def test_only_the_front_is_needed(front, tmp_path):
    front.save(tmp_path / "bare")
    page = Page(write_report([tmp_path / "bare"], tmp_path / "bare.html"))
    assert "bare" in page.text
    assert "None" not in page.text


def test_every_file_of_a_run_is_described(run, tmp_path):
    for name in ABOUT:
        (run / name).touch()
    page = Page(write_report([run], tmp_path / "report.html"))
    for name, words in ABOUT.items():
        assert name in page.text
        assert words in page.text


def test_broken_files_beside_the_front_do_not_matter(run, tmp_path):
    for name in ("run.json", "config.toml", "ensembles.json", "robustness.csv", "member_maps.npz"):
        (run / name).write_bytes(b"\xff[ broken")
    for folder, name in (("figures", "front3d.png"), ("explanation/figures", "explain_predictions.png")):
        (run / folder).mkdir(parents=True)
        (run / folder / name).write_bytes(b"\x89PNG\r\n\x1a\n broken")
    page = Page(write_report([run], tmp_path / "report.html"))
    assert not page.all("img")
    for what in ("ensembles.json cannot be read", "robustness.csv cannot be read", "member_maps.npz is damaged"):
        assert what in page.text
    (run / "run.json").write_text("[1, 2]")
    (run / "config.toml").write_text('data = "nonsense"\nproblem = 3\n')
    write_report([run], tmp_path / "report.html")


def test_records_of_unexpected_kinds_do_not_matter(run, tmp_path):
    record = {
        "evaluations": "many",
        "diverged": [1],
        "seconds": {},
        "data": 7,
        "packages": [1],
        "baselines": {"front": {"test_hypervolume": "x"}},
        "extraction": {"backbone": {"args": [], "preprocessing": 1}, "ood": {"a": 1}, "n_skipped": "two"},
    }
    (run / "run.json").write_text(json.dumps(record))
    (run / "config.toml").write_text('[data]\nood = 5\n[search]\nbudget = "x"\n[problem]\nrepeats = "y"\n')
    assert "What was asked" in Page(write_report([run], tmp_path / "report.html")).text


def test_figures_and_heat_maps_are_in_the_page(run, tmp_path):
    for folder, name, size in (
        ("figures", "parallel.png", (60, 40)),
        ("explanation/figures", "explain_features.png", (3000, 500)),
    ):
        (run / folder).mkdir(parents=True)
        Image.new("RGB", size, "red").save(run / folder / name)
    page = Page(write_report([run], tmp_path / "report.html"))
    plot, photo = page.all("img")
    crowded = Page(write_report([run] * 5, tmp_path / "five.html"))
    assert not crowded.all("img")
    assert "figures: there are too many runs in one page" in crowded.text
    content = base64.b64decode(plot["src"].partition(",")[2])
    assert content == (run / "figures" / "parallel.png").read_bytes()
    assert (photo["width"], photo["height"]) == ("1600", "267")
    with Image.open(io.BytesIO(base64.b64decode(photo["src"].partition(",")[2]))) as image:
        assert (image.format, image.size) == ("JPEG", (1600, 267))


def test_heat_maps_of_members(front, run, tmp_path):
    maps = _maps(len(front), 3)
    maps.save(run)
    page = Page(write_report([run], tmp_path / "report.html"))
    heat = page.data["views"][0]["heat"]
    assert base64.b64decode(heat["heat"]) == maps.heat.tobytes()
    assert (heat["rows"], heat["columns"]) == (4, 5)
    assert heat["captions"][0] == ["✓ a, 50 %", "✗ a, 50 %; it is b", "a, 50 %"]
    assert len([image for image in page.all("img") if (image["alt"] or "").startswith("photo ")]) == 3
    _maps(len(front) + 1, 3).save(run)
    page = Page(write_report([run], tmp_path / "report.html"))
    assert page.data["views"][0]["heat"] is None
    assert "member_maps.npz is damaged, or of another front" in page.text


def _maps(members: int, images: int) -> MemberMaps:
    jpeg = io.BytesIO()
    Image.new("RGB", (32, 24), "green").save(jpeg, "jpeg")
    return MemberMaps(
        keys=tuple(f"photo {i}" for i in range(images)),
        labels=np.array([0, 1, -1])[:images],
        thumbnails=(jpeg.getvalue(),) * images,
        heat=np.random.default_rng(0).integers(0, 256, (members + 1, images, 4, 5), dtype=np.uint8),
        predicted=np.zeros((members + 1, images), np.int64),
        confidence=np.full((members + 1, images), 0.5, np.float16),
    )


def test_older_runs_have_no_confusion_matrices(front, tmp_path):
    page = _report(replace(front, predictions=None), tmp_path)
    assert page.data["views"][0]["confusions"] == []
    assert "confusion matrices: the run has no predictions.npz" in page.text


def test_empty_front(front, tmp_path):
    none = np.arange(0)
    empty = replace(
        front,
        masks=front.masks[:0],
        active=front.active[:0],
        values=front.values[:0],
        F=front.F[:0],
        heads=(),
        test=front.test[:0],
        test_columns={name: column[:0] for name, column in front.test_columns.items()},
        predictions=front.predictions.take(none),
        history={},
    )
    page = _report(empty, tmp_path)
    assert page.data == {"views": []}
    assert "The search found no feasible mask" in page.text


def test_regression(small_regression, quick_head, tmp_path):
    front = evolve(PruningProblem(small_regression, head=quick_head, cv=2, seed=1), pop_size=6, n_gen=2, seed=1)
    page = _report(front, tmp_path)
    view = page.data["views"][0]
    assert view["classes"] == view["confusions"] == []
    assert "test R²" in [column["label"] for column in view["columns"]]


def test_several_runs_have_a_section_each_and_a_merged_front(front, small_features, quick_head, tmp_path):
    problem = PruningProblem(small_features, head=quick_head, cv=3, seed=2)
    other = evolve(problem, pop_size=6, n_gen=2, seed=2)
    folders = [_save(front, tmp_path / "one"), _save(other, tmp_path / "two")]
    page = Page(write_report(folders, tmp_path / "new" / "both.html"))
    merged = Front.merge([front, other])
    assert [view["key"] for view in page.data["views"]] == ["merged", "run1", "run2"]
    assert [len(view["labels"]) - 1 for view in page.data["views"]] == [len(merged), len(front), len(other)]
    test_it_can_be_read_without_seeing_it(page)
    units = evolve(
        PruningProblem(small_features, encoding="neurons", head=quick_head), pop_size=6, n_gen=1, seed=2
    )
    page = Page(write_report([folders[0], _save(units, tmp_path / "three")], tmp_path / "odd.html"))
    assert [view["key"] for view in page.data["views"]] == ["run1", "run2"]
    assert "no merged front" in page.text


def test_runs_on_other_data_are_not_merged(front, tmp_path):
    runs = [_save(front, tmp_path / name) for name in ("one", "two")]
    for run, digest in zip(runs, ("aa", "bb"), strict=True):
        (run / "run.json").write_text(json.dumps({"data": {"sha256": digest}}))
    page = Page(write_report(runs, tmp_path / "both.html"))
    assert "different data or heads: no merged front" in page.text
    assert [view["key"] for view in page.data["views"]] == ["run1", "run2"]


def test_ensembles_of_another_front_are_left_out(front, run, small_features, tmp_path):
    study = study_ensembles(front, small_features)
    study.save(run)
    assert "features in the union" in Page(write_report([run], tmp_path / "own.html")).text
    replace(study, n_features=99).save(run)
    page = Page(write_report([run], tmp_path / "other.html"))
    assert "features in the union" not in page.text
    assert "ensembles.json is about another front" in page.text


def test_odd_pictures_and_numbers_do_not_matter(run, tmp_path):
    (run / "figures").mkdir()
    Image.new("1", (9500, 9500)).save(run / "figures" / "front3d.png")
    (run / "explanation" / "figures").mkdir(parents=True)
    Image.new("1", (10, 70_000)).save(run / "explanation" / "figures" / "explain_x.png")
    (run / "run.json").write_text('{"evaluations": 3, "seconds": 1' + "0" * 400 + "}")
    assert Page(write_report([run], tmp_path / "report.html")).all("h1")


def test_large_fronts_stay_small_pages(tmp_path):
    generator = np.random.default_rng(0)
    members, features, classes, rows = 200, 1280, 27, 300
    names = tuple(f"class {i}" for i in range(classes))
    masks = generator.random((members, features)) < np.geomspace(0.002, 0.6, members)[:, None]
    masks[:, 0] = True
    masks = masks[np.argsort(masks.sum(axis=1), kind="stable")]

    def head(inputs):
        return TrainedHead(
            task="classification",
            n_features=features,
            inputs=inputs,
            weights=(np.ones((len(inputs), 2), np.float32), np.ones((2, classes), np.float32)),
            biases=(None, None),
            mean=np.zeros(len(inputs), np.float32),
            scale=np.ones(len(inputs), np.float32),
        )

    labels = generator.integers(0, classes, rows)
    values = np.column_stack([generator.random(members), masks.mean(axis=1)])
    base = _two_objectives()
    front = replace(
        base,
        masks=masks,
        active=masks.sum(axis=1),
        values=values,
        F=values * [-1, 1],
        heads=tuple(head(np.flatnonzero(mask)) for mask in masks),
        test=values[:, 0],
        dense_head=head(np.arange(features)),
        class_names=names,
        predictions=Predictions(
            "classification",
            np.arange(rows),
            labels,
            generator.normal(size=(members + 1, rows, classes)).astype(np.float32),
            labels,
            generator.integers(0, classes, (members + 1, rows)),
        ),
    )
    folder = tmp_path / "large"
    front.save(folder)
    path = write_report([folder], tmp_path / "large.html")
    assert path.stat().st_size < 2_000_000
    view = Page(path).data["views"][0]
    assert view["mask"]["groups"][0]["columns"] == 40
    test = view["confusions"][0]
    wrong = confusion_matrix(labels, front.predictions.test_predictions[3], labels=range(classes))
    np.fill_diagonal(wrong, 0)
    assert [rows for _, _, rows in test["largest"][3]] == sorted(wrong.ravel().tolist())[::-1][:12]
    assert all(wrong[true, guess] == count for true, guess, count in test["largest"][3])


def _two_objectives() -> Front:
    """A front of two objectives, to be filled with other members."""
    generator = np.random.default_rng(0)
    rows, labels = generator.normal(size=(40, 4)), np.arange(40) % 2
    features = FeatureSet(rows[:30], labels[:30], rows[30:], labels[30:])
    problem = PruningProblem(
        features, objectives=("accuracy", "active_neurons"), head=HeadSettings(hidden=(2,), epochs=1), cv=2
    )
    return evolve(problem, pop_size=4, n_gen=1, seed=0)


def test_command(front, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _save(front, tmp_path / "run")
    assert main(["report", "run"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert "What was asked" in Page(tmp_path / "run" / "report.html").text
    for expected in ("run.html", "run-2.html"):
        assert main(["report", "run", "run", "--quiet"]) == 0
        assert (tmp_path / "reports" / expected).exists()
    assert capsys.readouterr().out == ""
    for bad, said in (
        (["run", "--out", "page.txt"], "ends in .html"),
        (["run", "--out", ""], "ends in .html"),
        (["nowhere"], "is nowhere a finished run?"),
    ):
        assert main(["report", *bad]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "folder.html").mkdir()
    assert main(["report", "run", "--out", "folder.html"]) == 2
    with pytest.raises(InputError, match="name at least one run folder"):
        write_report([], tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
