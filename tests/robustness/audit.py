"""What moevoprune stands on: licences of all packages that it brings, and whether any has a known hole.

    python tests/robustness/audit.py --licences   # the table of docs/dependencies.md
    python tests/robustness/audit.py              # known vulnerabilities (pip install pip-audit)

Both look at the packages that the installed moevoprune needs at run time, its extras ``onnx``, ``ray`` and ``age``
included, and at what those need in turn: not at tools for tests and documentation, nor at whatever else is there.
pip-audit is told exact versions, and resolves and installs nothing; it asks PyPI, or with ``--service osv`` OSV.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# of moevoprune: what users install; the others are for developers
EXTRAS = ("onnx", "ray", "age")

# licences that ask for more than to be named, first that fits
REMARKS = (
    (r"NVIDIA|Proprietary", "**not open source**: NVIDIA's terms; only with PyTorch's CUDA builds for Linux"),
    (r"Affero|AGPL", "**strong copyleft, also over a network**: what is passed on with it comes under it"),
    (r"\bGPL|GNU General Public", "**strong copyleft**: what is passed on with it comes under it"),
    (r"LGPL|Lesser General Public", "weak copyleft: the library must stay replaceable"),
    (r"MPL|Mozilla|EPL|Eclipse|CDDL", "copyleft for its own files: changes to them are passed on under it"),
    (r"unknown", "**states none: ask its authors**"),
)
# alternatives that a licence names, of which the milder one holds
CHOICE = re.compile(r"\bOR\b")


class Dependency(NamedTuple):
    """A package that is needed, and the extras of moevoprune that bring it (empty: it always comes)."""

    name: str
    licence: str
    extras: tuple[str, ...]

    @property
    def remark(self) -> str:
        """What the licence asks for, beyond being named."""
        parts = CHOICE.split(self.licence)
        found = [next((text for pattern, text in REMARKS if re.search(pattern, part, re.I)), "") for part in parts]
        return "" if "" in found else found[0]


def licence_of(package: metadata.Distribution) -> str:
    """The licence that a package states: its SPDX expression, its name, its classifiers, or its first line."""
    about = package.metadata
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [
        text.rpartition(" :: ")[2].replace("OSI Approved", "").strip()
        for text in about.get_all("Classifier", [])
        if text.startswith("License :: ")
    ]
    named = [name for name in classifiers if name]
    text = str(about.get("License") or "").strip()
    # some put the whole text there; a name says more than a classifier ("BSD License") where there is one
    if text and text.upper() != "UNKNOWN" and "\n" not in text and len(named) < 2:
        return text
    return " AND ".join(named) or _first_line(package) or "unknown"


def _first_line(package: metadata.Distribution) -> str:
    for path in package.files or ():
        if re.match(r"(LICEN[CS]E|COPYING)", path.name, re.I):
            text = path.read_text(encoding="utf-8").strip()
            if "Permission is hereby granted, free of charge" in text and "AS IS" in text:
                return "MIT (by its text)"
            if text:
                return f"{text.splitlines()[0][:60]} (first line of its {path.name})"
    return ""


def needed(extras: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Installed packages that moevoprune needs with some of its extras, directly or not, by name.

    Raises
    ------
    SystemExit
        One of them is not installed.
    """
    found: dict[str, metadata.Distribution] = {}
    seen = set()
    waiting = deque([("moevoprune", frozenset(extras))])
    while waiting:
        name, wanted = waiting.popleft()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise SystemExit(f"{name} is not installed: pip install '.[{','.join(EXTRAS)}]'") from None
        found[name] = package
        for line in package.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    del found["moevoprune"]
    return found


def dependencies() -> list[Dependency]:
    """All packages that users may get, in the order of their names."""
    always = needed(())
    by_extra = {extra: needed([extra]) for extra in EXTRAS}
    packages = {name: package for found in (always, *by_extra.values()) for name, package in found.items()}
    return [
        Dependency(
            name,
            licence_of(packages[name]),
            () if name in always else tuple(extra for extra in EXTRAS if name in by_extra[extra]),
        )
        for name in sorted(packages)
    ]


def table(found: Iterable[Dependency]) -> str:
    """The packages as a table in Markdown."""
    lines = ["| package | licence | comes with | remark |", "| --- | --- | --- | --- |"]
    for one in found:
        comes = ", ".join(f"`[{extra}]`" for extra in one.extras) or "moevoprune"
        lines.append(f"| {one.name} | {one.licence.replace('|', '/')} | {comes} | {one.remark} |")
    return "\n".join(lines)


def audit(service: str) -> int:
    """Ask pip-audit about the installed versions; its exit code."""
    packages = needed(EXTRAS)
    with tempfile.TemporaryDirectory() as folder:
        # a local version (+cu132) is a build of the release, which is what is known about
        pins = [f"{name}=={package.version.partition('+')[0]}" for name, package in sorted(packages.items())]
        listed = Path(folder) / "requirements.txt"
        listed.write_text("\n".join(pins), encoding="utf-8")
        # strict: a package that cannot be asked about counts as a failure, not as a clean one
        command = ["--strict", "--no-deps", "--disable-pip", "--vulnerability-service", service]
        print(f"{len(pins)} packages, asked of {service}", flush=True)
        words = [sys.executable, "-m", "pip_audit", "--requirement", str(listed), *command]
        return subprocess.run(words, check=False).returncode


def main() -> int:
    """Carry out what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--licences", action="store_true", help="print the table of licences")
    parser.add_argument("--service", choices=("pypi", "osv"), default="pypi", help="whom to ask (default: pypi)")
    options = parser.parse_args()
    if options.licences:
        print(table(dependencies()))
        return 0
    return audit(options.service)


if __name__ == "__main__":
    sys.exit(main())
