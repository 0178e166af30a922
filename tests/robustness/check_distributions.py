"""Build the wheel and the sdist, and check them as a user gets them.

    python tests/robustness/check_distributions.py [--tests [PATH ...]] [--keep FOLDER]

In this order, from a copy of what git has (needs git, and ``pip install build uv``):

1. both are built twice, from copies in folders of other names, with files of other times and other permissions for
   the group: byte for byte the same, and the wheel built from the sdist is the one built from the checkout;
2. they hold what git has of their folders, nothing else: no leftovers, no compiled code, no program but
   ``moevoprune``, nothing that Python runs by itself when it starts;
3. the wheel is installed alone into an empty environment, and runs the main command there;
4. the sdist is unpacked into an empty folder, installed from there with its tests' needs, and its tests run
   (--tests: these; without paths all fast ones. Without --tests: those that take seconds).

With --keep the files that were checked are left there, to be signed and published.
"""

from __future__ import annotations

import argparse
import configparser
import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from environments import ROOT, checkout, make_environment, run

# of the checkout: what the sdist has, and what its build adds
IN_SDIST = ("moevoprune/", "problems/", "experiments/", "benchmarks/", "tests/", "docs/")
FILES_IN_SDIST = {"README.md", "CHANGELOG.md", "SECURITY.md", "pyproject.toml", ".gitignore"}
FEW_TESTS = ["tests/test_package.py", "tests/robustness/test_supply_chain.py", "tests/heads/test_encodings.py"]
MAIN_COMMAND = ["run", "--pop", "6", "--gens", "2", "--cv", "2", "--set", "epochs=2", "--quiet"]


class Findings:
    """What was checked, and what was wrong."""

    def __init__(self) -> None:
        self.checked = 0
        self.wrong = 0

    def check(self, holds: bool, what: str, details: object = "") -> None:
        """Note and print one result."""
        self.checked += 1
        self.wrong += not holds
        print(f"{'ok  ' if holds else 'LOST'} {what}{'' if holds else f': {details}'}", flush=True)


def tracked() -> set[str]:
    """Files that git has at HEAD."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-tree", "-r", "-z", "--name-only", "HEAD"], check=True, capture_output=True
    )
    return set(done.stdout.decode().strip("\0").split("\0"))


def build(tree: Path, out: Path, seconds: str) -> tuple[Path, Path]:
    """Build the sdist and from it the wheel; both paths."""
    run([sys.executable, "-m", "build", tree, "-o", out], env={**os.environ, "SOURCE_DATE_EPOCH": seconds})
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


def disturbed_copy(tree: Path, place: Path) -> Path:
    """The same files elsewhere, with other times and permissions, and leftovers that git ignores."""
    shutil.copytree(tree, place)
    for path in place.rglob("*"):
        if path.is_file():
            os.utime(path, (1_000_000_000, 1_000_000_000))
            path.chmod(0o664)
    for leftover in (
        "moevoprune/__pycache__/old.cpython-310.pyc",
        "runs/digits-seed1/front.csv",
        "build/lib/old.py",
    ):
        (place / leftover).parent.mkdir(parents=True, exist_ok=True)
        (place / leftover).write_text("left over", encoding="utf-8")
    return place


def check_builds(tree: Path, work: Path, findings: Findings) -> tuple[Path, Path]:
    """Build twice and compare."""
    seconds = subprocess.run(
        ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], check=True, capture_output=True, text=True
    ).stdout.strip()
    sdist, wheel = build(tree, work / "dist", seconds)
    again = build(disturbed_copy(tree, work / "another-name"), work / "dist-again", seconds)
    for first, second in zip((sdist, wheel), again, strict=True):
        digest = hashlib.sha256(first.read_bytes()).hexdigest()
        same = first.read_bytes() == second.read_bytes()
        findings.check(same, f"{first.name} is byte-identical when it is built again: {digest}")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": seconds}
    run([sys.executable, "-m", "build", "--wheel", tree, "-o", work / "direct"], env=environment)
    direct = work / "direct" / wheel.name
    findings.check(
        direct.read_bytes() == wheel.read_bytes(), "the wheel from the checkout is the one from the sdist"
    )
    return sdist, wheel


def check_wheel(wheel: Path, findings: Findings) -> None:
    """Compare its content with git's, and look for what could run by itself."""
    package = {name for name in tracked() if name.startswith("moevoprune/")}
    problems = {f"moevoprune/{name}" for name in tracked() if name.startswith("problems/")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (about,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        own = {f"{about}/{name}" for name in ("METADATA", "WHEEL", "entry_points.txt", "RECORD")}
        findings.check(
            names == package | problems | own,
            "the wheel holds the package",
            sorted(names ^ (package | problems | own)),
        )
        findings.check(bool(problems), "the wheel holds the problems")
        tags = archive.read(f"{about}/WHEEL").decode()
        findings.check(
            "Root-Is-Purelib: true" in tags and "Tag: py3-none-any" in tags, "the wheel is pure Python", tags
        )
        entries = configparser.ConfigParser()
        entries.read_string(archive.read(f"{about}/entry_points.txt").decode())
        programs = {section: dict(entries[section]) for section in entries.sections()}
        only = {"console_scripts": {"moevoprune": "moevoprune.cli.main:main"}}
        findings.check(programs == only, "its one entry point is the command moevoprune", programs)
        recorded = {row[0] for row in csv.reader(io.StringIO(archive.read(f"{about}/RECORD").decode()))}
        findings.check(recorded == names, "RECORD lists every file", sorted(recorded ^ names))


def check_sdist(sdist: Path, findings: Findings) -> None:
    """Compare its content with git's."""
    wanted = {name for name in tracked() if name.startswith(IN_SDIST) or name in FILES_IN_SDIST}
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    top = sdist.name.removesuffix(".tar.gz")
    names = {member.name.removeprefix(f"{top}/") for member in members}
    findings.check(
        names == wanted | {"PKG-INFO"}, "the sdist holds the sources", sorted(names ^ (wanted | {"PKG-INFO"}))
    )
    findings.check(names >= FILES_IN_SDIST, "README, CHANGELOG and SECURITY among them", FILES_IN_SDIST - names)
    odd = [member.name for member in members if not member.isfile() or member.mode & 0o7022]
    findings.check(not odd, "it holds plain files that only their owner may write", odd)


def check_installed_wheel(wheel: Path, work: Path, findings: Findings) -> None:
    """Install it as users do, and run the main command."""
    own = make_environment(work / "of-wheel", sys.executable, wheel, "", None)
    command = own.with_name("moevoprune" + own.suffix)
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "MOEVOPRUNE_CACHE": str(work / "cache")}
    done = subprocess.run([str(command), *MAIN_COMMAND], cwd=elsewhere, env=environment, check=False)
    written = {path.name for path in (elsewhere / "runs" / "digits-seed1").glob("*")}
    findings.check(done.returncode == 0, "the installed wheel runs `moevoprune run`", done.returncode)
    findings.check(
        {"front.csv", "report.html", "figures"} <= written, "and writes its run folder", sorted(written)
    )
    shown = subprocess.run([str(command), "problems"], cwd=elsewhere, capture_output=True, text=True, check=False)
    findings.check("srsmas" in shown.stdout, "`moevoprune problems` finds those of the wheel", shown.stderr)


def check_tests_of_sdist(sdist: Path, work: Path, tests: list[str], findings: Findings) -> None:
    """Install from it, and run its tests."""
    place = work / "of-sdist"
    with tarfile.open(sdist) as archive:
        archive.extractall(place, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (tree,) = place.iterdir()
    own = make_environment(work / "sdist-environment", sys.executable, tree, "test", None)
    environment = {**os.environ, "MOEVOPRUNE_CACHE": str(work / "cache")}
    # not `python -m pytest`, which would find the package of the folder instead of the installed one
    words = [str(own.with_name("pytest" + own.suffix)), "-q", "-p", "no:cacheprovider", *tests]
    print("$", *words, flush=True)
    code = subprocess.run(words, cwd=tree, env=environment, check=False).returncode
    findings.check(code == 0, f"the sdist's tests pass ({' '.join(tests) or 'all fast ones'})", f"code {code}")


def main() -> int:
    """Check everything; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", nargs="*", metavar="PATH", help="tests to run from the sdist")
    parser.add_argument("--no-install", action="store_true", help="stop after the contents: no environments")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="put the wheel and the sdist there")
    options = parser.parse_args()
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sdist, wheel = check_builds(checkout(work), work, findings)
        check_wheel(wheel, findings)
        check_sdist(sdist, findings)
        if not options.no_install:
            check_installed_wheel(wheel, work, findings)
            check_tests_of_sdist(sdist, work, FEW_TESTS if options.tests is None else options.tests, findings)
        if options.keep is not None and not findings.wrong:
            options.keep.mkdir(parents=True, exist_ok=True)
            for path in (sdist, wheel):
                shutil.copy2(path, options.keep)
    print(f"{findings.checked} checks, {findings.wrong} failed")
    return int(findings.wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
