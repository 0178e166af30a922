"""The page: content into one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from moevoprune.errors import InputError, printable_lines
from moevoprune.files import make_folder, write_text
from moevoprune.fronts.front import Front
from moevoprune.fronts.report.content import RunReport, SeveralRuns, describe_run, describe_several

__all__ = ["render_page", "write_report"]

_HERE = Path(__file__).parent
# runs of which figures, up to 2 MB each, are put into one page
_MOST_WITH_PICTURES = 4
# the browser runs the script and applies the style with these hashes and no others, and loads nothing
_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
    "style-src '{style}'; script-src '{script}'"
)


def write_report(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Write one HTML page about a run, or about several beside one another.

    The page is one file without any reference to others: it opens from disk and makes no request. Only the saved
    front of a run is needed; whatever else is in its folder is shown, and what is missing is left out.

    Parameters
    ----------
    folders
        Run folders, at least one.
    out
        The file; its folder is made where missing.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        There is no folder, a saved front cannot be read, or the file cannot be written.
    """
    if not folders:
        raise InputError("there is no run to report: name at least one run folder")
    out = Path(out)
    if out.is_dir():
        raise InputError(f"{out}: is a folder: name a file, e.g. {out / 'report.html'}")
    fronts = [Front.load(folder) for folder in folders]
    reports = [
        describe_run(Path(folder), front, f"run{number}", len(fronts) <= _MOST_WITH_PICTURES)
        for number, (folder, front) in enumerate(zip(folders, fronts, strict=True), start=1)
    ]
    page = render_page(reports, describe_several(reports, fronts) if len(reports) > 1 else None)
    try:
        make_folder(out.parent)
    except OSError as error:
        raise InputError(f"{out.parent}: cannot be made ({error.strerror}): choose another --out") from None
    write_text(out, page)
    return out


def render_page(reports: Sequence[RunReport], several: SeveralRuns | None = None) -> str:
    """Put content into HTML.

    Parameters
    ----------
    reports
        At least one.
    several
        What they are together, where there are several.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    style = (_HERE / "report.css").read_text(encoding="utf-8")
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    merged = None if several is None else several.merged
    views = [view for view in [merged, *(report.view for report in reports)] if view is not None]
    return environment.get_template("page.html.j2").render(
        title=f"{reports[0].name}: moevoprune report" if several is None else "moevoprune report",
        policy=_POLICY.format(style=_hash(style), script=_hash(script)),
        style=Markup(style),
        script=Markup(script),
        reports=reports,
        several=several,
        data={"views": [view.to_data() for view in views]},
    )


def _shown(value: Any) -> Any:
    """What is put into the page: names of others without what reorders text, hides in it or is no character."""
    return printable_lines(value) if type(value) is str else value


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
