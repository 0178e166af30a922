"""The package as a whole: its imports run one way, and it comes without what it does not need."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import moevoprune

PACKAGE = Path(moevoprune.__file__).parent
LAYERS = [
    "features",
    "heads",
    "objectives",
    "baselines",
    "search",
    "fronts",
    "filters",
    "construction",
    "cli",
    "studies",
]
# the roots may be used by every layer
ROOTS = {"device", "errors", "files", "memory", "locks", ""}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("moevoprune"):
            found.add((node.module or "").removeprefix("moevoprune").strip(".").split(".")[0])
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("moevoprune"):
                    found.add(name.name.removeprefix("moevoprune").strip(".").split(".")[0])
    return found


def test_imports_run_one_way():
    checked = 0
    for number, layer in enumerate(LAYERS):
        allowed = ROOTS | set(LAYERS[: number + 1])
        for path in (PACKAGE / layer).rglob("*.py"):
            assert _imports(path) <= allowed, path
            checked += 1
    assert checked > 20


def test_objectives_know_neither_training_nor_pymoo():
    for path in (PACKAGE / "objectives").rglob("*.py"):
        assert _imports(path) <= {"objectives", "errors"}, path
        assert "pymoo" not in path.read_text(encoding="utf-8")


def test_import_works_without_torchvision_and_without_a_warning():
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import moevoprune\n"
        "[getattr(moevoprune, name) for name in moevoprune.__all__]\n"
        "assert moevoprune.__version__\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bare_import_is_light():
    code = "import sys, moevoprune; print([m for m in ('torch', 'pymoo', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names():
    assert set(moevoprune.__all__) <= set(dir(moevoprune))
    for name in moevoprune.__all__:
        assert getattr(moevoprune, name).__doc__
