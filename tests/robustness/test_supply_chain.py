"""What comes with moevoprune, and what runs while it is installed: pyproject.toml and the installed package.

check_distributions.py looks into freshly built wheels and sdists, audit.py asks about known holes.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import audit
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
RUNTIME = [*PROJECT["dependencies"], *(line for e in audit.EXTRAS for line in PROJECT["optional-dependencies"][e])]


def _names(lines):
    return {canonicalize_name(Requirement(line).name) for line in lines}


def test_all_that_runs_while_it_is_built_is_pinned():
    assert SETTINGS["build-system"]["build-backend"] == "hatchling.build"
    assert "backend-path" not in SETTINGS["build-system"]
    for line in SETTINGS["build-system"]["requires"]:
        ((operator, version),) = ((s.operator, s.version) for s in Requirement(line).specifier)
        assert operator == "==", line
        assert "*" not in version, line
    # hatchling and what it needs
    pinned = _names(SETTINGS["build-system"]["requires"])
    assert pinned == {"hatchling", "packaging", "pathspec", "pluggy", "tomli", "tomlkit", "trove-classifiers"}


def test_no_code_of_the_project_runs_while_it_is_built():
    for name in ("setup.py", "setup.cfg", "hatch_build.py", "MANIFEST.in"):
        assert not (ROOT / name).exists()
    # values that a program computes, and programs that the build calls
    assert "dynamic" not in PROJECT
    hatch = SETTINGS["tool"]["hatch"]
    assert set(hatch) == {"build"}
    assert set(hatch["build"]) == {"targets"}
    assert {name: set(target) for name, target in hatch["build"]["targets"].items()} == {
        "wheel": {"packages", "force-include"},
        "sdist": {"include"},
    }


def test_one_program_is_installed_and_nothing_that_runs_by_itself():
    package = metadata.distribution("moevoprune")
    assert [(e.group, e.name, e.value) for e in package.entry_points] == [
        ("console_scripts", "moevoprune", "moevoprune.cli.main:main")
    ]
    about = package.read_text("WHEEL") or ""
    assert "Root-Is-Purelib: true" in about
    assert re.findall(r"^Tag: (.*)$", about, re.MULTILINE) == ["py3-none-any"]
    own = [str(path) for path in package.files or () if not str(path).startswith(("moevoprune/", "moevoprune-"))]
    # beside the package its program, and in a developer's installation the path of the checkout
    allowed = (r"(\.\./)*(bin|Scripts)/moevoprune(\.exe)?", r"_(editable_impl_)?moevoprune\.pth")
    is_editable = '"editable": true' in (package.read_text("direct_url.json") or "").replace("\n", " ")
    for path in own:
        assert re.fullmatch(allowed[0], path) or (is_editable and re.fullmatch(allowed[1], path)), path


def test_every_dependency_has_a_lower_bound_and_no_upper_one():
    for line in RUNTIME:
        requirement = Requirement(line)
        operators = [specifier.operator for specifier in requirement.specifier]
        assert operators == [">="], f"{line}: an upper bound keeps users from fixed versions"
        assert requirement.url is None, line


def test_installed_dependencies_keep_the_bounds():
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            assert Version(metadata.version(requirement.name)) in requirement.specifier, line


def test_weights_of_strangers_need_a_torch_that_reads_them_safely():
    (torch,) = (Requirement(line) for line in PROJECT["dependencies"] if Requirement(line).name == "torch")
    # CVE-2025-32434: torch.load(weights_only=True) could be made to run code
    assert "2.5.1" not in torch.specifier


def test_every_direct_dependency_is_in_the_table_of_licences():
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(): cells[2].strip() for line in page.splitlines() if len(cells := line.split("|")) > 4}
    missing = _names(RUNTIME) - {name for name in rows if name}
    assert not missing, "python tests/robustness/audit.py --licences has the rows"
    assert all(licence for name, licence in rows.items() if name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_installed_dependency_has_a_strong_copyleft():
    found = audit.dependencies()
    assert {"numpy", "torch", "pymoo", "sympy", "onnx", "ray", "numba"} <= {one.name for one in found}
    assert [one for one in found if "strong copyleft" in one.remark] == []


@pytest.mark.parametrize(
    ("licence", "word"),
    [
        ("MIT", ""),
        ("BSD-3-Clause AND MIT", ""),
        ("GPL-3.0-or-later", "strong copyleft"),
        ("GNU General Public License v3 (GPLv3)", "strong copyleft"),
        ("AGPL-3.0", "strong copyleft"),
        ("GNU Affero General Public License", "strong copyleft"),
        ("LGPL-2.1-or-later", "weak copyleft"),
        ("GNU Lesser General Public License v2", "weak copyleft"),
        ("MPL-2.0 AND MIT", "its own files"),
        ("GPL-2.0 OR MIT", ""),
        ("MIT AND GPL-3.0-only", "strong copyleft"),
        ("LGPL-3.0 AND GPL-3.0", "strong copyleft"),
        ("LicenseRef-NVIDIA-Proprietary", "not open source"),
        ("unknown", "states none"),
    ],
)
def test_licences_that_restrict_are_remarked(licence, word):
    remark = audit.Dependency("x", licence, ()).remark
    assert word in remark
    assert bool(remark) == bool(word)
