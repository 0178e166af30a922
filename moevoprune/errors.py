"""The one exception that means "your input, not our code", and how validation errors become one line."""

from __future__ import annotations

import difflib
import operator
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, cast

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

__all__ = [
    "InputError",
    "RunWarning",
    "describe_validation_error",
    "nearest",
    "one_line",
    "preset_of",
    "printable",
    "printable_lines",
    "whole_number",
    "words_of",
]

_Settings = TypeVar("_Settings", bound="BaseModel")

# of a longer line, with a name of 100 kB in it, the beginning and the advice at the end
_LONGEST = 480
_REORDERING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
# marks of direction, which reorder what stands beside them; a byte order mark; interlinear notes; tags, which
# nobody sees and some programs read
_UNSEEN = re.compile("[\u061c\u200e\u200f\u2060-\u2064\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]")
# a letter of any living script needs fewer; floods of them paint over the lines above and below
_MOST_MARKS = 8


class InputError(ValueError):
    """Bad input, described in one line: what is wrong, where, and what to do about it.

    The command line prints the message and exits with code 2; Python callers may catch it as a
    :class:`ValueError`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class RunWarning(RuntimeWarning):
    """What a user should know of a run that goes on all the same; the command line prints that line alone."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def whole_number(name: str, value: object, low: int, high: int | None = None) -> int:
    """Check a whole number given by a user.

    Raises
    ------
    InputError
        It is no whole number, or not between ``low`` and ``high``.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(cast(SupportsIndex, value))
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        upper = f" and at most {high}" if high is not None else ""
        raise InputError(f"{name} = {value!r}: use a whole number of at least {low}{upper}")
    return int(number)


def describe_validation_error(
    error: ValidationError, where: str, keys_at: Callable[[tuple[int | str, ...]], Iterable[str]]
) -> str:
    """Put the first complaint of a pydantic error into one line.

    Parameters
    ----------
    error
        What pydantic raised.
    where
        What the settings belong to, for the start of the line.
    keys_at
        Gives the valid keys at the place of a complaint, to suggest the nearest one.
    """
    complaints = error.errors(include_url=False)
    # a misspelt key leaves the right one missing: the spelling is the thing to say
    first = next((c for c in complaints if c["type"] == "extra_forbidden"), complaints[0])
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        keys = sorted(keys_at(first["loc"]))
        hint = nearest(str(first["loc"][-1]), keys) or f"; known keys: {', '.join(keys)}"
        return f"{where}: unknown key {path!r}{hint}"
    if first["type"] == "missing":
        return f"{where}: {path} is missing"
    given = _short(first["input"])
    if first["type"] == "value_error":
        return f"{where}: {path} = {given}: {first['msg'].removeprefix('Value error, ')}"
    if first["type"] == "model_type":
        return f"{where}: {path} = {given} is not valid: it is a section, write [{path}]"
    message = first["msg"].removeprefix("Input should be ").replace("a valid tuple", "a list")
    return f"{where}: {path} = {given} is not valid: should be {message}"


def preset_of(
    settings: type[_Settings],
    presets: Mapping[str, Mapping[str, Any]],
    kind: str,
    name: str,
    changes: Mapping[str, Any],
) -> _Settings:
    """Build the settings of a preset, with some of them changed.

    Parameters
    ----------
    settings
        The class of the settings.
    presets
        What differs from the defaults, by the preset's name.
    kind
        What the settings are about, for messages.
    name
        A key of ``presets``.
    changes
        What differs from the preset.

    Raises
    ------
    InputError
        The preset or a setting is unknown, or a value is out of range.
    """
    from pydantic import ValidationError

    if name not in presets:
        raise InputError(
            f"unknown {kind} preset {name!r}{nearest(name, presets)}: use one of {', '.join(sorted(presets))}"
        )
    try:
        return settings(**{**presets[name], **changes})
    except ValidationError as error:
        described = describe_validation_error(error, f"{kind} settings", lambda _: settings.model_fields)
        raise InputError(described) from None


def one_line(text: str) -> str:
    """Text with words of others in it as one :func:`printable` line, not too long to be read.

    Parameters
    ----------
    text
        Whatever is to be said.
    """
    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} [...] {line[-_LONGEST // 2 :]}"


def printable(text: str) -> str:
    """Replace what could move the cursor, break the line, reorder the text, hide in it or fail to encode by "?".

    Parameters
    ----------
    text
        Of others: names of files, classes or settings. Where names go into CSV, Markdown or figures,
        :mod:`moevoprune.fronts.tables` and :func:`moevoprune.fronts.plots.style.plain_text` do more.
    """
    if text.isascii() and text.isprintable():
        return text
    chars = []
    marks = 0
    for char in text:
        category = unicodedata.category(char)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        bad = (
            marks > _MOST_MARKS
            or category in ("Cc", "Cs", "Zl", "Zp")
            or unicodedata.bidirectional(char) in _REORDERING
            or _UNSEEN.match(char)
        )
        chars.append("?" if bad else char)
    return "".join(chars)


def printable_lines(text: str) -> str:
    """Text of several lines, each :func:`printable`: what a command says, with names of others in it."""
    return "\n".join(printable(line) for line in text.split("\n"))


def words_of(error: Exception) -> str:
    """What an error of a file or a library says, in one printable line."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(" ".join(str(said).split()))[:200]


def _short(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, or deep lists
        text = f"this {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
