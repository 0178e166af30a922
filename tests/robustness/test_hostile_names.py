"""Names of others, through every command and into every kind of output."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hostile_names import (
    FILE_NAMES,
    NAMES,
    check_csv,
    check_file_name,
    check_line,
    check_page,
    check_terminal,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from moevoprune import FeatureSet, Front, PruningProblem, evolve
from moevoprune.cli.config import parse_config, read_toml
from moevoprune.cli.main import main
from moevoprune.cli.processes import free_name
from moevoprune.cli.table import front_table, objectives_line
from moevoprune.errors import printable, printable_lines
from moevoprune.fronts.heatmaps import file_names
from moevoprune.fronts.plots import save_figures, style
from moevoprune.fronts.report import write_report
from moevoprune.fronts.robustness import RobustnessCurve, from_csv, to_csv
from moevoprune.fronts.tables import csv_rows, csv_text, markdown_code, markdown_table, markdown_text

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="such file names exist on Linux alone")

QUICK = ["--pop", "4", "--gens", "2", "--cv", "2", "--set", "epochs=1", "--set", "hidden=[4]", "--jobs", "1"]
BACKBONE = ["--backbone", "mobilenet_v2", "--backbone-arg", "width_mult=0.1", "--weights", "none", "--size", "32"]
# what one file or folder can be called all at once
WORST = "=cmd|\x1b[31m $x$ `b`\n<script>alert(1)<|script> \u202e&'\""
NETWORK = """
from torch import nn

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda n_classes, in_channels: nn.Sequential(
        nn.Conv2d(in_channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n_classes),
    )
"""
_MARKDOWN_TAGS = {
    *("p", "code", "table", "thead", "tbody", "tr", "th", "td", "img", "strong", "em", "ul", "ol", "li"),
    *("h1", "h2", "h3"),
}
PLAIN = settings(max_examples=300, derandomize=True, database=None, deadline=None)
HOSTILE = st.one_of(
    st.sampled_from(sorted(name[:300] for name in NAMES.values())), st.text(st.characters(), max_size=30)
)


@pytest.fixture(scope="module", autouse=True)
def rough_figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 30)
        yield


@dataclass
class Desk:
    """A folder in which commands have run, and what they said."""

    folder: Path
    full: bool
    said: list[str] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)

    def do(self, *arguments: object, code: int = 0) -> None:
        heard = io.StringIO()
        with redirect_stdout(heard), redirect_stderr(heard):
            given = main([str(argument) for argument in arguments])
        self.said.append(heard.getvalue())
        assert given == code, (arguments, heard.getvalue()[-2000:])

    def written(self, pattern: str) -> list[Path]:
        return sorted(path for path in self.folder.rglob(pattern) if path not in self.files and path.is_file())


def rows_of(names: list[str], seed: int, per_class: int = 5) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.tile(np.arange(len(names)), per_class)
    rows = generator.normal(size=(len(labels), 9)) + labels[:, None] % 7
    return {"X_train": rows, "y_train": labels, "X_test": rows[::2] + 0.1, "y_test": labels[::2]}


@pytest.fixture(scope="module", params=["features", pytest.param("every command", marks=pytest.mark.slow)])
def desk(request, tmp_path_factory) -> Desk:
    """Commands on files, folders, classes, columns and functions with these names; slow: every command."""
    folder = tmp_path_factory.mktemp("desk")
    here = Desk(folder, request.param != "features")
    names = list(NAMES.values())
    many, few = folder / f"{WORST}.npz", folder / "@few.npz"
    FeatureSet(**rows_of(names, 1, 3), class_names=tuple(names), name=WORST).save(many)
    FeatureSet(**rows_of(names[:6], 2), class_names=tuple(names[:6])).save(few)
    run, other = folder / f"run {WORST}", folder / "--run"
    here.files = {many, few}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MOEVOPRUNE_CACHE", str(folder / "cache"))
        here.do("run", many, "--out", run, *QUICK, "--no-baselines")
        here.do("run", few, *QUICK, f"--out={other}")
        here.do("robustness", other, "--noise", "1", "--repeats", "1")
        for command in ("show", "explain"):
            here.do(command, run)
        if here.full:
            use_every_command(here, run, other, few)
    return here


def use_every_command(here: Desk, run: Path, other: Path, few: Path) -> None:
    folder, shots = here.folder, here.folder / "shots"
    images = photographs(folder / f"images{WORST}")
    here.files |= set(images.rglob("*"))
    here.do("run", few, *QUICK, "--no-baselines", "--seed", "2")
    for command in ("plot", "report", "ensemble"):
        here.do(command, run)
    here.do("run", images, *BACKBONE, *QUICK, "--out", shots, "--test-fraction", "0.25")
    here.do("extract", images, *BACKBONE, "--out", folder / "=out.npz")
    here.do("explain", shots, "--images", images, "--per-class", "1", "--top", "2")
    here.do("robustness", shots, "--noise", "1", "--corruptions", "jpeg", "--severities", "1", "--limit", "2")
    here.do("report", run, other, shots, "--out", folder / "three.html")
    here.do("export", run, "--to", folder / "=head.safetensors")
    here.do("compare-runs", other, next((folder / "runs").iterdir()), "--out", folder / "beside")
    here.do("sweep", few, "--seeds", "1", "--out", folder / "swept", *QUICK)
    comparison = ["--methods", "dense,anova", "--seeds", "1", "--jobs", "1", "--cv", "2", "--set", "epochs=1"]
    here.do("compare", few, "--out", folder / "compared", *comparison)

    bars, networks, table = folder / "=bars\x1b.npz", folder / "@net.py", folder / "=table\x1b\n.csv"
    pixels = np.random.default_rng(5).integers(0, 255, (60, 6, 6), dtype=np.uint8)
    np.savez(bars, X_train=pixels[:40], y_train=np.arange(40) % 2, X_test=pixels[40:], y_test=np.arange(20) % 2)
    networks.write_text(NETWORK)
    header = ["=cmd|x", "\x1b[31m", "<script>", "@target"]
    lines = [f"{i % 7},{i % 5},{i % 3},{('=one', chr(27) + '[2J', '<b>')[i % 3]}" for i in range(60)]
    table.write_text("\n".join([",".join(header), *lines]) + "\n")
    here.files |= {bars, networks, table}
    pruning = ["--budget", "6", "--pop", "6", "--search-images", "20", "--epochs", "1", "--jobs", "1"]
    here.do("filters", bars, "--network", f"{networks}:=cmd$x$", "--out", folder / "pruned", *pruning)
    fast = ["--hidden", "6", "--epochs", "2", "--cv", "2", "--epsilon", "0,1", "--jobs", "1", "--budget", "0"]
    here.do("construct", table, "--target", "@target", "--out", folder / "built", *fast)


def photographs(images: Path) -> Path:
    for label, name in enumerate(list(FILE_NAMES.values())[:8]):
        for number, file in enumerate(("=1.png", f"{WORST}.png", "\x1b[2J.png", "-x\udc80.png")):
            (images / name).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(10 * label + number).integers(0, 200, (36, 34, 3), dtype=np.uint8)
            Image.fromarray(pixels + np.uint8(5 * label)).save(images / name / file)
    return images


# --- what the commands left -------------------------------------------------------------------------


def test_terminal(desk):
    assert len(desk.said) == (19 if desk.full else 5)
    assert all(desk.said)
    for said in desk.said:
        check_terminal(said)


def test_csv(desk):
    tables = desk.written("*.csv")
    expected = {"front.csv", "ensembles.csv", "windows.csv", "robustness.csv"}
    if desk.full:
        expected |= {"runs.csv", "sweep.csv", "compare.csv", "members.csv", "filters.csv", "construct.csv"}
    assert expected <= {path.name for path in tables}
    for path in tables:
        check_csv(path.read_bytes().decode("utf-8"))


def test_markdown(desk):
    texts = desk.written("*.md")
    expected = {"compare.md", "compare-runs.md", "filters.md", "construct.md"} if desk.full else set()
    assert {path.name for path in texts} == expected
    for path in texts:
        html = rendered(path.read_text(encoding="utf-8"))
        tags = set(re.findall(r"</?(\w+)", html))
        assert tags <= _MARKDOWN_TAGS, tags
        assert all(re.fullmatch(r"(\w+/)?[\w%.-]+\.png", place) for place in re.findall('src="([^"]*)"', html))


def test_pages(desk):
    pages = desk.written("*.html")
    assert len(pages) == (7 if desk.full else 2)
    for path in pages:
        check_page(path.read_text(encoding="utf-8"))


def test_json_and_toml(desk):
    records = desk.written("*.json")
    assert len(records) >= 4
    for path in records:
        json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    found = desk.written("config.toml")
    assert len(found) >= 2
    for path in found:
        config = parse_config(read_toml(path), "config")
        assert parse_config(read_toml(path), "config") == config
        source = Path(config.data.source)
        assert source in desk.files or source.is_dir() or source.suffix == ".npz"


def test_figures(desk):
    figures = desk.written("*.png")
    assert len(figures) > (25 if desk.full else 10)
    for path in figures:
        with Image.open(path) as image:
            image.load()
            # a name must not blow a figure up
            assert max(image.size) < 4000, path


def test_file_names(desk):
    given_here = (f"run {WORST}", "--run", f"images{WORST}", "=out.npz", "=head.safetensors")
    asked = {desk.folder / name for name in given_here}
    made = [path for path in desk.folder.rglob("*") if path not in desk.files | asked]
    names = {part for path in made for part in path.relative_to(desk.folder).parts}
    names -= {path.name for path in asked} | set(FILE_NAMES.values())
    assert len(names) > (60 if desk.full else 20)
    for name in names:
        check_file_name(name)
    assert {path.name for path in desk.folder.parent.iterdir() if path.name.startswith("owned")} == set()


def test_fronts_are_loaded_again(desk):
    front = Front.load(desk.folder / f"run {WORST}")
    assert front.class_names == tuple(printable(name) for name in NAMES.values())


# --- names as arguments -----------------------------------------------------------------------------

PLACES = (
    "run @",
    "run --out x --set @=1",
    "run --out x --set hidden=@",
    "run --out x --backbone @",
    "run --out x --objectives @",
    "run --out x --encoding @",
    "run --out x --algorithm @",
    "run --out x --device @",
    "run --out @ --resume",
    "run --@",
    "@",
    "show @",
    "plot @",
    "report @",
    "explain @",
    "explain F --member @",
    "ensemble @",
    "robustness @",
    "export @ --to x.onnx",
    "export F --to @",
    "compare-runs @ @",
    "compare @",
    "compare F --methods @",
    "sweep @",
    "extract @ --out x.npz",
    "extract F --out @",
    "extract F --out x.npz --backbone-arg @",
    "filters @ --network cnn",
    "filters F --network @",
    "filters F --network @.py:f",
    "filters F --network cnn --weights @",
    "construct @",
    "construct F --target @",
)


def fits_the_system(name: str) -> bool:
    """Whether the argument of a process can hold it."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


@pytest.mark.parametrize("place", PLACES)
def test_arguments(place, tmp_path, monkeypatch, capsys):
    desk = tmp_path / "above" / "here"
    desk.mkdir(parents=True)
    monkeypatch.chdir(desk)
    monkeypatch.setenv("MOEVOPRUNE_CACHE", str(tmp_path / "cache"))
    features = tmp_path / "features.npz"
    features.write_bytes(b"nothing of use")
    for what, name in NAMES.items():
        if not fits_the_system(name):
            continue
        arguments = [word.replace("@", name) if word != "F" else str(features) for word in shlex.split(place)]
        try:
            code = main(arguments)
        except SystemExit as exit_:  # argparse
            code = exit_.code
        captured = capsys.readouterr()
        assert code == 2, (what, captured)
        assert captured.out == ""
        assert captured.err.count("\n") == 1, (what, captured.err[:1000])
        assert len(captured.err) < 600, what
        check_terminal(captured.err)
    assert not list(desk.iterdir())
    assert {path.name for path in tmp_path.iterdir()} <= {"above", "cache", "features.npz"}


# --- one medium at a time ---------------------------------------------------------------------------


def rendered(markdown: str) -> str:
    """What a reader of GitHub's Markdown makes of it."""
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    return markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)


@PLAIN
@given(HOSTILE)
def test_printable(text):
    check_line(printable(text))
    assert len(printable(text)) == len(text)
    assert printable(printable(text)) == printable(text)


def test_printable_leaves_names_alone():
    for name in ("café", "cafe\u0301", "漢字", "😀👩\u200d🔬", "नमस्ते", "مرحبا", "שָׁלוֹם", "a-b_c", "ชื่อ"):
        assert printable(name) == name


@PLAIN
@given(st.lists(st.lists(HOSTILE, min_size=2, max_size=2), min_size=1, max_size=4))
@example([["=1", "'=1"], ["''=1", ";=1"], ["a;'=1", "\n=1"], ["-.5", "+1e9"]])
def test_csv_is_harmless_and_read_back(rows):
    text = csv_text(["name", "value"], rows)
    check_csv(text)
    # carriage returns are among what becomes a question mark
    kept = [["\n".join(map(printable, cell.split("\n"))) for cell in row] for row in rows]
    assert csv_rows(text) == [["name", "value"], *kept]


def test_numbers_in_csv_stay_numbers():
    rows = [(-0.5, -3, "-.25", "+1e-3", np.float32(-2.5), np.int64(-7), True, None, float("-inf"), "-1:2")]
    text = csv_text([f"c{i}" for i in range(10)], rows)
    assert text.splitlines()[1] == "-0.500000,-3,-.25,+1e-3,-2.5,-7,True,,-inf,'-1:2"


def test_robustness_of_a_forged_name_is_read_back():
    names = dict.fromkeys(printable(name) for name in NAMES.values())
    curves = [RobustnessCurve(name, "jpeg", (1.0,), (0.5,), (0.1,)) for name in names]
    kinds = [RobustnessCurve("a", name, (1.0,), (0.5,), (0.1,)) for name in names]
    for given_ in (curves, kinds):
        check_csv(to_csv(given_))
        assert from_csv(to_csv(given_)) == given_


@PLAIN
@given(HOSTILE)
def test_markdown_shows_the_name_and_nothing_else(text):
    html = rendered(f"Name: {markdown_text(text)}.")
    assert unescaped(html).split() == f"Name: {printable(text)}.".split()
    inside = rendered(f"# {markdown_text(text)}.")
    assert inside.startswith("<h1>")
    assert "<" not in inside[4:-6]
    cell = rendered("\n".join(markdown_table([["a", "b"], [markdown_text(text), "x"]])))
    assert cell.count("<td") == 2
    assert not re.search("<(?!/?(table|thead|tbody|tr|t[hd]))", cell)


@PLAIN
@given(HOSTILE)
def test_markdown_code(text):
    shown = printable(text)
    if not shown.strip():
        return
    html = rendered(f"x {markdown_code(text)} y")
    assert re.fullmatch(r"<p>x <code>[^<]*</code> y</p>\n", html), html
    assert unescaped(html) == f"x {shown} y"


def unescaped(html: str) -> str:
    """Text of one paragraph without any tags in it."""
    from html import unescape

    inside = html.removeprefix("<p>").removesuffix("</p>\n").replace("<code>", "").replace("</code>", "")
    assert "<" not in inside, html
    return unescape(inside)


@PLAIN
@given(st.lists(HOSTILE, min_size=1, max_size=5))
def test_names_of_files_are_safe_and_different(names):
    taken: set[str] = set()
    for name in names:
        free = free_name(name, taken)
        check_file_name(f"{free}-seed1")
        check_file_name(free)
        assert free.partition(".")[0].lower() not in ("con", "nul", "aux", "prn", "com1")
        assert free.casefold() not in taken
        taken.add(free.casefold())
    drawn = file_names(names)
    assert len({name.casefold() for name in drawn}) == len(names)
    for name in drawn:
        check_file_name(name)


# three at a time; those that a figure or a page must not fall over, first
_ORDER = ["broken formula", "long", "script", "no glyph", "title", "flood"]
_THREES = [*_ORDER, *(what for what in NAMES if what not in _ORDER)]


@pytest.mark.parametrize(
    "start", [pytest.param(start, marks=[pytest.mark.slow] * (start > 3)) for start in range(0, len(NAMES), 3)]
)
def test_figures_and_page_of_hostile_objectives(start, few_front, tmp_path):
    """Objectives of users' own have names of their own, on every axis: no warning, and no figure that grows."""
    names = [NAMES[what] for what in (_THREES * 2)[start : start + 3]]
    axes = tuple(replace(axis, name=f"{name}:x") for axis, name in zip(few_front.axes, names, strict=True))
    named = replace(few_front, axes=axes)
    for path in save_figures(named, tmp_path / "figures"):
        with Image.open(path) as image:
            assert max(image.size) < 1500
    named.save(tmp_path)
    check_csv((tmp_path / "front.csv").read_text(encoding="utf-8"))
    check_page(write_report([tmp_path], tmp_path / "report.html").read_text(encoding="utf-8"))
    check_terminal(f"{printable_lines(front_table(named))}\n{printable_lines(objectives_line(named))}")


@pytest.fixture(scope="module")
def few_front(small_features, quick_head):
    return evolve(PruningProblem(small_features, head=quick_head, cv=2, seed=1), pop_size=6, n_gen=2, seed=1)
