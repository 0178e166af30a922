"""Names that others chose to do harm, and what no output may hold of them."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from html.parser import HTMLParser

__all__ = [
    "FILE_NAMES",
    "NAMES",
    "PageReader",
    "check_csv",
    "check_file_name",
    "check_line",
    "check_page",
    "check_terminal",
]

NAMES: dict[str, str] = {
    "script": "</script><script>alert(1)</script>",
    "attribute": "\" onmouseover='alert(1)' x=\"",
    "picture": "<img src=http://evil.example/x.png onerror=alert(1)>",
    "comment": "--><svg/onload=alert(1)><!--",
    "template": "{{ 7 * 7 }}{% raw %}${7*7}",
    "style": "</style><style>*{background:url(http://evil.example)}",
    "colour": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "clear": "\x9b2J\x1bc\rall is well",
    "backspace": "bad\x08\x08\x08good\x7f",
    "override": "a\u202egnp.exe\u2066b\u2069",
    "marks": "\u200fabc\u200e\u061c",
    "tags": "ok\U000e0041\U000e0042\ufeff",
    "lines": "one\ntwo\r\nthree\u2028four\x85five",
    "null": "a\x00b",
    "formula": "=cmd|' /C calc'!A0",
    "plus": "+1+1",
    "minus": "-2+3+cmd|' /C calc'!A0",
    "at": "@SUM(1+1)*cmd|' /C calc'!A0",
    "tab": "\t=1+1",
    "return": "\r=1+1",
    "wide formula": "\uff1d1+1",
    "second cell": "a;=1+1",
    "quotes": '",=1+1,"',
    "long": "long " + "x" * 100_000,
    "dollars": "$\\frac{1}{0}$ $x$",
    "broken formula": "$\\undefined{$",
    "backslash": "\\\\server\\share\\",
    "cells": "a | b || c",
    "markdown": "![](http://evil.example/x.png) [b](javascript:alert(1)) `c` **d** # e",
    "fence": "``` ` ``",
    "address": "http://evil.example www.evil.example",
    "surrogate": "a\ud800b",
    "no UTF-8": "a\udc80b",
    "flood": "Z" + "\u0301\u0489" * 500,
    "traversal": "../../../tmp/owned",
    "above": "..",
    "device": "CON",
    "case one": "Same",
    "case two": "sAME",
    "composed": "caf\u00e9",
    "decomposed": "cafe\u0301",
    "no glyph": "\U0001f600\u6f22\u0b95",
    "option": "--nothing=/tmp/owned",
    "shell": "$(touch owned) `touch owned`; touch owned",
    "percent": "%s %(x)d {0.__class__}",
}
"""By what they try."""

# those that can be the name of a file on Linux, and no longer than file systems allow
FILE_NAMES = {
    what: name
    for what, name in NAMES.items()
    if "/" not in name and "\0" not in name and name != ".." and len(name) < 80
}

_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+|inf|nan)(e[+-]?\d+)?")


def check_line(line: str) -> None:
    """Nothing in a line may steer a terminal, reorder or hide text, or fail to be written."""
    marks = 0
    for char in line:
        assert unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp"), ascii(line[:500])
        assert char not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c", ascii(
            line[:500]
        )
        assert not "\U000e0000" <= char <= "\U000e007f", ascii(line[:500])
        marks = marks + 1 if unicodedata.combining(char) or unicodedata.category(char) == "Me" else 0
        assert marks <= 30, ascii(line[:500])


def check_terminal(text: str) -> None:
    """What a command printed."""
    for line in text.split("\n"):
        check_line(line)
    assert "Traceback" not in text
    assert "Warning" not in text


def check_csv(text: str) -> list[list[str]]:
    """No cell starts a formula; neither does one where semicolons or tabs are taken for separators."""
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    widths = {len(row) for row in rows}
    assert len(widths) == 1, widths
    for row in rows:
        for cell in row:
            for part in re.split("[;\t\n]", cell):
                assert _NUMBER.fullmatch(part) or not _FORMULA.match(part), ascii(cell[:200])
            for line in cell.split("\n"):
                check_line(line)
    return rows


def check_file_name(name: str) -> None:
    """A name that was made from one of these."""
    check_line(name)
    assert not set(name) & set("/\\:*?\"<>|$`;&'\t\n"), ascii(name)
    assert not name.startswith("-"), ascii(name)
    assert len(name.encode()) <= 200
    assert name.strip(".")


class PageReader(HTMLParser):
    """What there is in a page: tags, attributes, scripts, styles and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.styles: list[str] = []
        self.text: list[str] = []
        self._within: tuple[str, dict[str, str]] = "", {}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._within = tag, {name: value or "" for name, value in attrs}

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._within = "", {}

    def handle_endtag(self, tag: str) -> None:
        self._within = "", {}

    def handle_data(self, data: str) -> None:
        tag, attributes = self._within
        if tag == "script":
            self.scripts.append((attributes, data))
        elif tag == "style":
            self.styles.append(data)
        else:
            self.text.append(data)


# what the template has; no tag that loads, embeds, submits or redirects
_TAGS = set(
    re.findall(
        r"\w+",
        "html head meta title link style script body a header footer main nav section article p "
        "span button h1 h2 h3 h4 div ul li svg path g circle rect line text dl dt dd details "
        "summary table caption thead tbody tr th td figure figcaption img label select option input "
        "pre code ",
    )
)


def check_page(page: str) -> PageReader:
    """The page loads nothing, and runs and applies its own script and style alone."""
    found = PageReader(page)
    assert found.tags <= _TAGS, found.tags - _TAGS
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("style", "srcdoc", "srcset", "action", "formaction", "ping", "background"), (tag, name)
        assert re.fullmatch("[a-z-]+|viewBox|viewbox|preserveaspectratio|[xyrd][12]?", name), (tag, name)
        if name in ("src", "href", "xlink:href"):
            assert (
                value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")) or value == "data:,"
            )
    assert [attributes.get("type") for attributes, _ in found.scripts] == ["application/json", None]
    assert len(found.styles) == 1
    for line in page.split("\n"):
        check_line(line.replace("\t", " "))
    return found
