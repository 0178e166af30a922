"""Tables of heads evolved in several encodings: searches, baselines, published figures and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from moevoprune.fronts.statistics import interval
from moevoprune.fronts.tables import markdown_table
from moevoprune.studies.pruning_encodings import BASELINES, Cell, Cells, Values
from moevoprune.studies.pruning_encodings_claims import Comparisons, Tests
from moevoprune.studies.published_leaves import AT_FS_DENSITY, PUBLISHED, is_leaves
from moevoprune.studies.saying import number, p_cell

__all__ = ["data_sections", "verdicts_table"]

_SEARCHES = """\
Test accuracy @ active bits. Differences are those of the front's head to the GA's winner; as accurate is how \
many seeds have a front with a head that reaches the validation accuracy of the GA's winner."""
_BASELINES = """\
Baselines at the size of the GA's winner; in brackets, what the winner has more, with the p-value after Holm."""
_PUBLISHED = "Published for LEAVES: ResNet-50, 512 units, another split, and fitness by test rows."

# encodings of heads with as many hidden layers, which all have the same dense head
_DEPTHS = {1: ("1 layer", "FS", "connections"), 2: ("FC1", "FC2", "both layers")}


def data_sections(name: str, of: Mapping[str, Cell], compared: Comparisons) -> list[str]:
    """Markdown of a data set: dense heads, searches and baselines, and on leaves the published figures.

    Parameters
    ----------
    name
        Of the data set.
    of
        Its cells by encoding, at least one.
    compared
        With this data set.
    """
    words = {1: "one layer", 2: "two layers"}
    dense = (f"{words[depth]} {_dense(of[encoding])}" for depth, encoding in _first_of_depth(of).items())
    sections = [
        f"Not pruned: {', '.join(dense)}.",
        _SEARCHES,
        _searches_table(of, name, compared),
        _BASELINES,
        _baselines_table(of, name, compared.baselines),
    ]
    return [*sections, _PUBLISHED, _published_table(of)] if is_leaves(name) else sections


def _searches_table(of: Mapping[str, Cell], name: str, compared: Comparisons) -> str:
    """Markdown: the GA's winner, and the front read at its accuracy."""
    head = ["", "GA's winner", "front, same accuracy", "difference in share", "in accuracy"]
    table = [[*head, "front, best", "as accurate"]]
    for encoding, cell in of.items():
        evolved, same, best = (_sized(cell, what) for what in ("evolved", "same", "best"))
        differences = [str(tests[encoding][name]) for tests in (compared.shares, compared.accuracies)]
        table.append([encoding, evolved, same, *differences, best, f"{cell.reached} of {len(cell.seeds)}"])
    return "\n".join(markdown_table(table))


def _baselines_table(of: Mapping[str, Cell], name: str, tests: Mapping[str, Tests]) -> str:
    """Markdown: test accuracy of the baselines, and what the GA's winner has more."""
    table = [["", "GA's winner", *tests]]
    for encoding, cell in of.items():
        row = [encoding, _sized(cell, "evolved")]
        for title, (share, _, test) in cell.baselines.items():
            size = f" @ {_percent(share)}" if title == BASELINES["best_fixed"] else ""
            row.append(f"{number(float(np.mean(test)))}{size} ({tests[title][encoding][name]})")
        table.append(row)
    return "\n".join(markdown_table(table))


def _published_table(of: Mapping[str, Cell]) -> str:
    """Markdown: the paper's figures for LEAVES beside those of this data set."""
    table: list[Sequence[str]] = [["", "published", "here"]]
    titles = {1: "1 layer", 2: "2 layers"}
    for depth, encoding in _first_of_depth(of).items():
        table.append([f"not pruned, {titles[depth]}", number(PUBLISHED[encoding].dense), _dense(of[encoding])])
    for encoding, cell in of.items():
        published = f"{number(PUBLISHED[encoding].accuracy)} @ {PUBLISHED[encoding].active} %"
        table.append([f"evolved, {encoding}", published, _sized(cell, "evolved")])
    for title, accuracy in AT_FS_DENSITY.items() if "FS" in of else ():
        table.append([f"{title} at FS's density", number(accuracy), str(interval(of["FS"].baselines[title][2]))])
    return "\n".join(markdown_table(table))


def verdicts_table(cells: Cells, what: str, compared: Comparisons) -> str:
    """Markdown: heads of a reading beside the dense ones.

    Parameters
    ----------
    cells
        By data set and encoding.
    what
        A key of :data:`moevoprune.studies.pruning_encodings_claims.READINGS`.
    compared
        Of these cells.
    """
    table = [["", "dense", "pruned", "active", "difference [over seeds]", "[over test rows]", "p, Holm", ""]]
    for name, of in cells.items():
        for encoding, cell in of.items():
            verdict = compared.verdicts[what][encoding][name]
            accuracies = [number(float(cell.heads[which].accuracy.mean())) for which in ("dense", what)]
            over_rows = verdict.over_rows.text(sign=True).partition(" ")[2]
            difference = verdict.over_seeds.difference.text(sign=True)
            said = [_percent(verdict.share), difference, over_rows, p_cell(verdict.p_value), verdict.word]
            table.append([f"{name}, {encoding}", *accuracies, *said])
    return "\n".join(markdown_table(table))


def _first_of_depth(of: Mapping[str, Cell]) -> dict[int, str]:
    """The first encoding there is for each number of hidden layers."""
    found = {depth: [name for name in names if name in of] for depth, names in _DEPTHS.items()}
    return {depth: names[0] for depth, names in found.items() if names}


def _dense(cell: Cell) -> str:
    """Test accuracy of the dense head with its interval."""
    return str(interval(cell.heads["dense"].accuracy))


def _sized(cell: Cell, what: str) -> str:
    """Test accuracy with its interval, and the share of active bits."""
    return f"{interval(cell.heads[what].accuracy)} @ {_percent(cell.heads[what].share)}"


def _percent(share: float | Values) -> str:
    """Mean share in percent, small ones with a digit more."""
    mean = 100 * float(np.mean(share))
    return f"{mean:.{1 if mean < 9.5 else 0}f} %"
