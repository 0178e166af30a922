"""The same fronts and passing tests on every Python, and on the oldest and newest packages that are supported.

    python tests/robustness/environments.py python3.10 python3.11 python3.12 python3.13 --versions alike --fronts
    python tests/robustness/environments.py python3.10 --versions oldest --fronts --tests
    python tests/robustness/environments.py python3.10 python3.12 python3.13 --versions newest --tests tests/heads

For each interpreter an environment of its own is made (by uv, which must be on the path: ``pip install uv``) and
the project is installed there from a copy of what git has, as a user would install it.

--fronts carries out small_runs.py twice, with one thread and one process and with two of each, another hash seed,
another locale, another time zone and an empty cache. Every file of results must be the same, byte for byte:
between the two always, and with ``--versions alike`` between all interpreters. Between environments whose packages
differ it is told how far the fronts do; that is no failure, since it is not promised (docs/reproducibility.md).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# what old packages say about the newest ones below them is not ours to mend
OLD_PACKAGES = [
    word
    for category in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
    for word in ("-W", f"ignore::{category}")
]
# differ in everything that must not matter
SURROUNDINGS = {
    1: {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
    2: {"PYTHONHASHSEED": "4711", "LC_ALL": "C", "TZ": "Pacific/Auckland"},
}
Summary = dict[str, dict[str, Any]]


def run(words: Sequence[str | Path], **more: Any) -> None:
    """Run a command; its failure ends the script."""
    print("$", *words, flush=True)
    subprocess.run([str(word) for word in words], check=True, **more)


def checkout(work: Path) -> Path:
    """A copy of what git has, so that nothing untracked helps."""
    tree = work / "checkout"
    if not tree.exists():
        archive = work / "checkout.tar"
        run(["git", "-C", ROOT, "archive", "--format=tar", "-o", archive, "HEAD"])
        shutil.unpack_archive(archive, tree)
        # tests find the data beside the checkout, where there are any
        if (ROOT.parent / "shared").is_dir():
            (work / "shared").symlink_to((ROOT.parent / "shared").resolve())
    return tree


def pinned(work: Path, python: str, extras: str, resolution: str) -> Path:
    """Versions that the project's bounds resolve to on a Python."""
    path = work / f"{resolution}.txt"
    extra = [word for name in extras.split(",") if name for word in ("--extra", name)]
    versions = ["--python", python, "--resolution", resolution, "--no-annotate"]
    run(["uv", "pip", "compile", "-q", *versions, *extra, ROOT / "pyproject.toml", "-o", path])
    return path


def make_environment(folder: Path, python: str, tree: Path, extras: str, constraints: Path | None) -> Path:
    """Install the project for an interpreter, into a new environment; its Python."""
    own = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not own.exists():
        run(["uv", "venv", "-q", "--python", python, folder])
    limits = [] if constraints is None else ["-c", constraints]
    project = f"{tree}[{extras}]" if extras else str(tree)
    run(["uv", "pip", "install", "-q", "--python", own, *limits, project])
    run(["uv", "pip", "check", "--python", own])
    return own


def fronts_of(own: Path, tree: Path, out: Path, threads: int, only: Sequence[str]) -> Summary:
    """What small_runs.py finds there."""
    shutil.rmtree(out, ignore_errors=True)
    places = {"MOEVOPRUNE_CACHE": str(out / "cache"), "OMP_NUM_THREADS": str(threads), **SURROUNDINGS[threads]}
    script = [own, tree / "tests" / "robustness" / "small_runs.py", "--out", out, "--jobs", str(threads)]
    run([*script, *(["--only", *only] if only else [])], env={**os.environ, **places}, cwd=out.parent)
    found: Summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return found


def files_that_differ(one: Summary, other: Summary) -> list[str]:
    """Names of files that only one has, or whose content differs."""
    files = [
        {f"{run}/{name}": text for run in found for name, text in found[run]["files"].items()}
        for found in (one, other)
    ]
    return sorted(name for name in files[0].keys() | files[1].keys() if files[0].get(name) != files[1].get(name))


def likeness(one: Summary, other: Summary) -> list[str]:
    """A line for each front: how many masks both have, and how far their objectives are apart."""
    lines = []
    for run_name in one.keys() & other.keys():
        for name, front in one[run_name]["fronts"].items():
            also = other[run_name]["fronts"][name]
            both = front.keys() & also.keys()
            apart = max(
                (abs(a - b) for mask in both for a, b in zip(front[mask], also[mask], strict=True)), default=0.0
            )
            lines.append(
                f"{run_name}: {len(front)} and {len(also)} members, {len(both)} in both, values {apart:.1e} apart"
            )
    return sorted(lines)


def check_fronts(environments: dict[str, Path], tree: Path, work: Path, alike: bool, only: Sequence[str]) -> int:
    """Compare all runs of all environments; the number of files that differ and must not."""
    lost = 0
    first: tuple[str, Summary] | None = None
    for name, own in environments.items():
        one, two = (fronts_of(own, tree, work / f"runs-{name}-{threads}", threads, only) for threads in (1, 2))
        (work / f"fronts-{name}.json").write_text(json.dumps(one), encoding="utf-8")
        count = sum(len(found["files"]) for found in one.values())
        if differ := files_that_differ(one, two):
            print(f"LOST {name}: one and two threads differ in {', '.join(differ)}")
        else:
            print(f"{name}: {count} files of {len(one)} runs are the same with one and two threads")
        lost += len(differ)
        if first is None:
            first = name, one
            continue
        differ = files_that_differ(first[1], one)
        print(f"{first[0]} and {name}: {len(differ)} of {count} files differ")
        if differ:
            print("\n".join(f"  {line}" for line in [*likeness(first[1], one), *differ]))
        lost += len(differ) if alike else 0
    return lost


def main() -> int:
    """Make the environments and check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs="+", help="interpreters: names or paths")
    parser.add_argument(
        "--versions",
        choices=("alike", "oldest", "newest"),
        default="newest",
        help="alike: for all those of the first interpreter; oldest: the lower bounds; newest (default)",
    )
    parser.add_argument("--extras", default="test", help="of the project, separated by commas (default: test)")
    parser.add_argument("--fronts", action="store_true", help="compare the small runs")
    parser.add_argument("--only", nargs="+", default=[], help="of the small runs (default: all)")
    parser.add_argument("--tests", nargs="*", help="run these tests (default: all fast ones)")
    parser.add_argument("--work", type=Path, help="folder of the environments, which is kept (default: temporary)")
    options = parser.parse_args()
    if shutil.which("uv") is None:
        parser.error("uv is not on the path: pip install uv")
    if not options.fronts and options.tests is None:
        parser.error("nothing to do: give --fronts, --tests or both")
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        return check(options, work)


def check(options: argparse.Namespace, work: Path) -> int:
    """Carry out what the command line asks for."""
    tree = checkout(work)
    constraints = None
    if options.versions != "newest":
        resolution = "lowest-direct" if options.versions == "oldest" else "highest"
        constraints = pinned(work, options.python[0], options.extras, resolution)
    environments = {}
    for number, python in enumerate(options.python):
        name = f"{options.versions}-{number}"
        environments[name] = make_environment(work / name, python, tree, options.extras, constraints)
        print(f"{name}: {python}", flush=True)
    lost = 0
    if options.fronts:
        lost += check_fronts(environments, tree, work, options.versions == "alike", options.only)
    if options.tests is not None:
        warnings = OLD_PACKAGES if options.versions == "oldest" else []
        for name, own in environments.items():
            # not `python -m pytest`, which would find the package of the checkout instead of the installed one
            pytest = own.with_name("pytest" + own.suffix)
            words = [pytest, "-q", "-p", "no:cacheprovider", *warnings, *options.tests]
            places = {**os.environ, "MOEVOPRUNE_CACHE": str(work / f"cache-{name}")}
            print("$", *words, flush=True)
            failed = subprocess.run([str(word) for word in words], cwd=tree, env=places, check=False).returncode
            print(f"{'LOST ' if failed else ''}{name}: pytest ended with code {failed}", flush=True)
            lost += failed != 0
    print(f"{len(environments)} environments, {lost} differences or failures")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
