"""Settings of the documentation: `sphinx-build -W --keep-going -b html docs docs/_build`.

The pages need no network, neither when they are built nor when they are read: formulas become MathML, which
browsers draw themselves, and nothing is linked to other projects' inventories.
"""

from __future__ import annotations

import html
import io
import os
import re
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib import metadata
from typing import Any
from unittest.mock import patch
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

import moevoprune
from moevoprune.cli.main import main

project = "moevoprune"
author = "the moevoprune authors"
project_copyright = "the moevoprune authors"
release = version = metadata.version("moevoprune")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"moevoprune {release}"
html_math_renderer = "mathml"
html_copy_source = False
pygments_style = "tango"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#00695c", "color-brand-content": "#00695c"},
    "dark_css_variables": {"color-brand-primary": "#4db6ac", "color-brand-content": "#4db6ac"},
}
html_static_path = ["_static"]
html_css_files = ["math.css"]

autodoc_default_options = {"members": True, "no-value": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 72
napoleon_google_docstring = False
# attributes as a list in their class, as parameters are, and not a second time as members
napoleon_use_ivar = True
napoleon_use_rtype = False

_MATHML = "{http://www.w3.org/1998/Math/MathML}"
# written without a prefix, which HTML does not know
ElementTree.register_namespace("", _MATHML.strip("{}"))

_ARRAY = re.compile(r"~?numpy\.ndarray\[tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[([^\[\]]*)\]\]")

# wide enough for the longest word, narrow enough for the page
_HELP_COLUMNS = "88"

_TOP_LEVEL = {name: getattr(moevoprune, name) for name in moevoprune.__all__}


class CommandHelp(SphinxDirective):
    """What ``moevoprune COMMAND --help`` prints, as a section for each command that is named."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Make the sections."""
        # no file of the documentation changes where a command does
        self.env.note_reread()
        sections: list[nodes.Node] = []
        for command in self.arguments[0].split():
            section = nodes.section(ids=[nodes.make_id(command)], names=[command])
            section += nodes.title(text=f"moevoprune {command}")
            section += nodes.literal_block(text=_help(command), language="none")
            sections.append(section)
        return sections


def _help(command: str) -> str:
    text = io.StringIO()
    with patch.dict(os.environ, COLUMNS=_HELP_COLUMNS), redirect_stdout(text), suppress(SystemExit):
        main([command, "--help"])
    return text.getvalue().strip()


def _mathml(tex: str, as_block: bool) -> str:
    """Convert a formula. The index of an accented letter, which docutils puts below it, goes to its side."""
    # HTML knows more names of letters than XML does
    text = re.sub(r"&(?!amp|lt|gt)\w+;", lambda name: html.unescape(name[0]), tex2mathml(tex, as_block=as_block))
    tree = ElementTree.fromstring(text)
    for accented in list(tree.iter(f"{_MATHML}munderover")):
        letter, index, accent = accented
        if accent.get("stretchy") == "false":
            accented.tag = f"{_MATHML}msub"
            accented[:] = [ElementTree.Element(f"{_MATHML}mover"), index]
            accented[0].extend([letter, accent])
    return ElementTree.tostring(tree, encoding="unicode")


def _math(as_block: bool) -> Callable[[Any, Any], None]:
    def visit(translator: Any, node: Any) -> None:
        formula = _mathml(node.astext(), as_block)
        translator.body.append(f'<div class="math">{formula}</div>' if as_block else formula)
        raise nodes.SkipNode

    return visit


def _keep_or_skip(_app: Sphinx, what: str, name: str, obj: Any, _skip: bool, _options: Any) -> bool | None:
    """Describe a top-level name once, as ``moevoprune.NAME``, and not in its module."""
    return True if what == "module" and _TOP_LEVEL.get(name) is obj else None


def _point_to_top_level(_app: Sphinx, what: str, name: str, obj: Any, _options: Any, lines: list[str]) -> None:
    """Say in a module's text where those of its names are that are described among the top-level ones."""
    if what != "module" or obj is moevoprune:
        return
    elsewhere = [
        public for public in getattr(obj, "__all__", ()) if _TOP_LEVEL.get(public) is getattr(obj, public)
    ]
    if elsewhere:
        links = ", ".join(f":py:obj:`moevoprune.{public}`" for public in elsewhere)
        lines += ["", f"Described among the top-level names: {links}.", ""]


def _shorten_arrays(
    _app: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Write ``ndarray[float64]`` for numpy's long name of that."""
    return tuple(text and _ARRAY.sub(r"~numpy.ndarray[\1]", text) for text in (signature, returned))


def _resolve_short_name(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Link a public name that is written without its module, or with one that passes it on."""
    domain = env.get_domain("py")
    wanted = node.get("reftarget", "").rpartition(".")[2]
    if node.get("refdomain") != "py" or not wanted:
        return None
    found = {
        (entry.docname, entry.node_id) for name, entry in domain.objects.items() if name.endswith(f".{wanted}")
    }
    if len(found) != 1:
        return None
    ((page, anchor),) = found
    return make_refnode(app.builder, node["refdoc"], page, anchor, content)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what this project adds to Sphinx."""
    app.add_directive("command-help", CommandHelp)
    app.add_html_math_renderer("mathml", (_math(False), None), (_math(True), None))
    app.connect("autodoc-skip-member", _keep_or_skip)
    app.connect("autodoc-process-docstring", _point_to_top_level)
    app.connect("autodoc-process-signature", _shorten_arrays)
    app.connect("missing-reference", _resolve_short_name)
    return {"parallel_read_safe": True}
