"""README and docs tell the truth: their Python runs, their commands are real, their pages build.

* Blocks of Python and of bash in one page run in their order, in one namespace and one temporary folder. In docs/,
  bash blocks hold ``moevoprune`` commands and nothing else; the two of the README are what .ci/run types.
* Commands in indented blocks and in running text may need what only a user has. They must be ones that the command
  line understands.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import moevoprune
from moevoprune.cli.config import set_value
from moevoprune.cli.main import _build_parser, main
from moevoprune.fronts.export import exporting
from moevoprune.fronts.export.measuring import latencies
from moevoprune.fronts.plots import style

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
EXPERIMENTS = ROOT / "experiments"
PAGES = [README, *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
# what is no code of ours: directives of the pages, and text to look at
SHOWN = re.compile(r"text|\{[\w-]+\}.*")

(_SUBPARSERS,) = (action for action in _build_parser()._actions if isinstance(action, argparse._SubParsersAction))
COMMANDS = tuple(_SUBPARSERS.choices)


class Block(NamedTuple):
    """A fenced block: its language, its text and the line of its fence."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[1].strip(), m[2], text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(text)]


def commands(block: str) -> Iterator[list[str]]:
    for line in block.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def runs(page: Path) -> bool:
    languages = {block.language for block in blocks(page)}
    return "python" in languages or ("bash" in languages and page != README)


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Caches of features, and of weights: random ones in place of those that torchvision would download."""
    import torch
    from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

    folder = tmp_path_factory.mktemp("caches")
    weights = folder / "torch" / "hub" / "checkpoints" / Path(MobileNet_V3_Small_Weights.DEFAULT.url).name
    weights.parent.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(mobilenet_v3_small().state_dict(), weights)
    return {"MOEVOPRUNE_CACHE": str(folder / "moevoprune"), "TORCH_HOME": str(folder / "torch")}


@pytest.fixture
def desk(tmp_path: Path, caches: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a reader, who has a folder of images as the pages call it: flowers/CLASS/*."""
    for name, value in caches.items():
        monkeypatch.setenv(name, value)
    # nobody looks at the pictures, or compares the times
    monkeypatch.setattr(style, "DPI", 30)
    monkeypatch.setattr(exporting, "latencies", partial(latencies, seconds=0.02))
    generator = np.random.default_rng(0)
    for label, name in enumerate(("daisy", "tulip")):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        for number in range(16):
            pixels = generator.integers(0, 100, (48, 48, 3), dtype=np.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(tmp_path / "flowers" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if runs(page)], ids=named)
def test_blocks_run(page, desk, capsys):
    namespace = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python":
            # as many empty lines before it as in the page, for the line numbers of a traceback
            code = compile("\n" * block.line + block.text, page, "exec")
            exec(code, namespace)
        elif block.language == "bash" and page != README:
            for program, *arguments in commands(block.text):
                assert program == "moevoprune", f"{named(page)}:{block.line}: {program}"
                assert main(arguments) == 0, f"{shlex.join(arguments)}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_is_run_or_plainly_text(page):
    for block in blocks(page):
        known = block.language in ("python", "bash") or SHOWN.fullmatch(block.language)
        assert known, f"{named(page)}:{block.line}: nobody checks a block of {block.language or 'no language'}"


def mentioned(page: Path) -> list[str]:
    """Commands in indented blocks, without what is said about them, and in running text."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    indented = re.findall(r"^ {4}(moevoprune .*)$", text, re.MULTILINE)
    running = re.findall(r"`(moevoprune [^`]+)`", text)
    return [re.split(r" {2,}| #", line)[0] for line in indented] + [" ".join(words.split()) for words in running]


@pytest.mark.parametrize("page", [page for page in PAGES if mentioned(page)], ids=named)
def test_mentioned_commands_are_understood(page, capsys):
    for command in mentioned(page):
        words = shlex.split(command)[1:]
        if words in [[name] for name in COMMANDS]:
            continue  # named, without what it needs
        try:
            _build_parser().parse_args(words)
        except SystemExit as end:
            if end.code != 0:
                pytest.fail(f"{command}: {capsys.readouterr().err}")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_mentioned_settings_exist(page):
    for assignment in re.findall(r"--set ([a-z][\w.]*=[^\s`]+)", page.read_text(encoding="utf-8")):
        assert set_value({}, assignment)


def test_mentions_are_found():
    assert "moevoprune run flowers --backbone efficientnet_b0 --out myrun" in mentioned(README)
    assert "moevoprune show myrun" in mentioned(README)
    assert any(command.startswith("moevoprune explain DIR") for command in mentioned(DOCS / "images.md"))


@pytest.mark.parametrize("page", [README, EXPERIMENTS / "README.md"], ids=["main", "experiments"])
def test_links_of_a_readme_lead_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    assert len(links) >= 3
    for link in links:
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_every_experiment_has_results_and_an_answer():
    answers = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    scripts = [path.stem for path in EXPERIMENTS.glob("*.py")]
    assert len(scripts) >= 10
    for name in scripts:
        assert f"](results/{name}.md)" in answers
        for suffix in (".md", ".csv", ".png"):
            assert (EXPERIMENTS / "results" / f"{name}{suffix}").is_file(), (name, suffix)
        page = (EXPERIMENTS / "results" / f"{name}.md").read_text(encoding="utf-8")
        for figure in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page):
            assert (EXPERIMENTS / "results" / figure).is_file(), (name, figure)


def test_the_two_commands_of_the_readme_are_what_ci_runs():
    install, test = (block.text for block in blocks(README) if block.language == "bash")
    assert "moevoprune run" in install
    assert "pytest" in test
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_command_is_on_its_page():
    (listed,) = re.findall(r"\{command-help\} (.*)", (DOCS / "commands.md").read_text(encoding="utf-8"))
    assert sorted(listed.split()) == sorted(COMMANDS)


def test_every_public_module_is_in_the_reference():
    """Those of the layers; a package inside a layer stands for its modules."""
    reference = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    described = re.findall(r"automodule:: (\S+)", reference)
    layers = [module.name for module in pkgutil.iter_modules(moevoprune.__path__, "moevoprune.") if module.ispkg]
    names = [f"moevoprune.{name}" for name in ("errors", "files", "locks", "memory", "device")]
    for layer in set(layers) - {"moevoprune.cli"}:
        path = importlib.import_module(layer).__path__
        names += [module.name for module in pkgutil.iter_modules(path, f"{layer}.")]
    public = [name for name in names if getattr(importlib.import_module(name), "__all__", ())]
    assert sorted(described) == sorted(public)
    top_level = re.findall(r"auto(?:class|function|exception):: moevoprune\.(\w+)$", reference, re.MULTILINE)
    assert sorted(top_level) == sorted(moevoprune.__all__)


def test_settings_of_the_pages_can_be_read():
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package)
    settings = runpy.run_path(str(DOCS / "conf.py"))
    assert settings["release"] == version("moevoprune")
    for extension in settings["extensions"]:
        importlib.import_module(extension)
    for folder in settings["html_static_path"]:
        for file in settings["html_css_files"]:
            assert (DOCS / folder / file).is_file()


@pytest.mark.slow  # the script of .ci builds them, too
def test_pages_build_without_warnings_and_need_no_network(tmp_path):
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    from_elsewhere = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"(?:\w+:)?//[^>]*>")
    for page in tmp_path.rglob("*.html"):
        assert from_elsewhere.search(page.read_text(encoding="utf-8")) is None, page
    assert "<math" in (tmp_path / "objectives.html").read_text(encoding="utf-8")
