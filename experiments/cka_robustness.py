"""What does CKA say: is a pruned head like the unpruned one, and does CKA under noise predict robustness?

Part A takes the best mask of EvoPruneDeepTL's search and compares its head, by what both make of the test rows and
by their weights, with that of the Hamming-nearest mask evaluated, with the unpruned head, and with controls.
Part B retrains all masks of a random and of a guided search, and asks whether the objective `cka:noise` tells more
about their accuracy on disturbed test rows than their size and validation accuracy do.

    python experiments/cka_robustness.py leaves.npz hymenoptera.npz
    python experiments/cka_robustness.py --quick
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from study import Settings, Study, describe, number, run_study, verdict
from threadpoolctl import threadpool_limits

from moevoprune.cli.building import alone, build_problem
from moevoprune.cli.processes import run_tasks
from moevoprune.cli.sweeping import SweepRun, usable_jobs
from moevoprune.errors import whole_number
from moevoprune.files import write_text
from moevoprune.fronts.matched_pairs import equal_pairs, gain_of_picking
from moevoprune.fronts.plots import style
from moevoprune.fronts.rank_correlation import rank_correlation
from moevoprune.fronts.robustness import feature_dropout, feature_noise
from moevoprune.fronts.run_folder import JOURNAL
from moevoprune.fronts.similarity import compare_heads
from moevoprune.fronts.statistics import Interval, holm, interval, p_text, t_test
from moevoprune.fronts.tables import csv_text, markdown_table
from moevoprune.search.journal import EvaluationJournal

Row = dict[str, Any]
Tested = tuple[Interval, float | None]

GENETIC, ENCODINGS, SEARCHES = "genetic-", ("features", "neurons"), ("random", "guided")
LEVEL = 0.05

# part A
OTHER_START = 1000
MOST_NEAREST = 3
COMPARISONS = {
    "best, nearest evaluated": "best and nearest evaluated",
    "best, dense": "best and unpruned",
    "best, random": "best and random of its size",
    "best, best restarted": "best and itself restarted",
    "best, dense restarted": "best and unpruned restarted",
    "dense, dense restarted": "unpruned and itself restarted",
}
PUBLISHED = {"best, nearest evaluated": (0.92, 0.99), "best, dense": (0.18, 0.38)}
MEASURES = {
    "linear": ("test rows, linear", style.BLUE, "o"),
    "rbf": ("test rows, RBF", style.ORANGE, "s"),
    "weights": ("weights, RBF", style.VERMILLION, "D"),
}

# part B
NOISES, SHARES, DRAWS = (0.5, 1.0, 2.0), (0.25, 0.5, 0.75), 5
DISTURBANCES = ["clean", *(f"noise {noise:g}" for noise in NOISES), *(f"dropout {share:g}" for share in SHARES)]
# what verdicts are about: the middle strength of the objective's own disturbance, and of another one
MAIN = {"noise 1": "noise of 1 standard deviation", "dropout 0.5": "loss of half of the features"}
OBJECTIVE, OTHER_OBJECTIVE = "cka:noise", "cka:dense"

ABOUT_A = """## A. Is the best mask's head like the unpruned one?

Best is the mask with the highest validation accuracy that the search evaluated, of equals the smaller one;
nearest the evaluated mask at the smallest Hamming distance from it. All heads are trained on the whole training
part. *Test rows*: debiased CKA between the heads' hidden representations of the same test rows; *weights*:
biased CKA with an RBF kernel between the first layers' weights, which is what EvoPruneDeepTL reports (kernel
width .8 median distances, ours). All heads have the same start weights, but for those *restarted* from another
seed, which show what two heads of one mask differ by. Means over seeds with 95 % intervals; *± over rows*: half
the 95 % interval of a grouped jackknife over the test rows, of the linear CKA, the mean over seeds. Published
(other backbone and search; fitness was test accuracy): weights .92 to .99 on most sets with the nearest
evaluated mask, .18 to .38 with the unpruned net. A published level holds where our mean lies in that range; an
order, where the difference is above 0 (paired t-test, p at most .05 after Holm's correction over the data sets,
marked by a star)."""

ABOUT_B = f"""## B. Does {OBJECTIVE} predict robustness?

Every mask that a random and a guided search evaluated is retrained and scored on disturbed test rows, {DRAWS}
draws each: with Gaussian noise of .5, 1 and 2 training standard deviations (the objective adds 1 to validation
rows), and with a quarter, a half and three quarters of the features lost, set to their training means, which it
has not seen. *Accuracy* is that on the disturbed rows; *fall* is that on clean test rows less it. Rank
correlations are Spearman's over the masks of a seed; *partial* ones given the number of active features and the
clean validation accuracy. Means over seeds with 95 % intervals; a star: differs from 0 (t-test, p at most .05
after Holm's correction over the data sets). By rule the objective *predicts* where the partial rank correlation
with accuracy is above 0 so tested, *predicts only through size and validation accuracy* where the plain one
alone is, and else *does not predict*. A partial rank correlation removes what goes linearly with the ranks;
masks of equal size, further below, need no such model. Above the figure's lower panels: the partial rank
correlation with the fall."""


def similarities(run: SweepRun) -> list[Row]:
    """Part A for one run: every comparison of two heads, on the test rows."""
    _, masks, values = EvaluationJournal.read(run.out / JOURNAL)
    best = masks[np.lexsort((masks.sum(axis=1), -values[:, 0]))[0]]
    distance = (masks != best).sum(axis=1)
    closest = distance[distance > 0].min()
    generator = np.random.default_rng([run.seed, 0xC4A])
    masks_of = {
        "best": best[None],
        "nearest evaluated": masks[distance == closest][:MOST_NEAREST],
        "random": generator.permutation(best)[None],
        "dense": np.ones_like(best)[None],
    }
    features, config = run.features(), alone(run.config)
    other_start = config.model_copy(update={"seed": run.seed + OTHER_START})
    with build_problem(config, features)[1] as problem, build_problem(other_start, features)[1] as restarted:
        heads = {name: list(problem.fitness.train_final(of)) for name, of in masks_of.items()}
        for name in ("best", "dense"):
            heads[f"{name} restarted"] = list(restarted.fitness.train_final(masks_of[name]))
    rows = []
    for comparison in COMPARISONS:
        one, other = comparison.split(", ")
        for head in heads[other]:
            found = compare_heads(heads[one][0], head, features.X_test, generator)
            row: Row = {"comparison": comparison, "active": best.sum(), "hamming": closest}
            for name, cka in (("linear", found.linear), ("rbf", found.rbf)):
                row |= {name: cka.mean, f"{name} low": cka.low, f"{name} high": cka.high}
            rows.append({**row, "weights": found.weights})
    return rows


def disturbed(run: SweepRun) -> list[Row]:
    """Part B for one run: every evaluated mask retrained, and scored on disturbed test rows."""
    header, masks, values = EvaluationJournal.read(run.out / JOURNAL)
    features = run.features()
    with build_problem(alone(run.config), features)[1] as problem:
        heads = {str(place): head for place, head in enumerate(problem.fitness.train_final(masks))}
    # the objective's own noise comes from the run's seed
    seed = run.seed + OTHER_START
    curves = [
        *feature_noise(heads, features, (0.0, *NOISES), seed, DRAWS),
        *feature_dropout(heads, features, SHARES, seed, DRAWS),
    ]
    rows: list[Row] = [
        {"search": run.variant, "active": mask.sum(), **dict(zip(header["objectives"], scores, strict=True))}
        for mask, scores in zip(masks, values.tolist(), strict=True)
    ]
    for curve in curves:
        kind = curve.kind.removeprefix("feature_")
        for strength, accuracy in zip(curve.severities, curve.accuracy, strict=True):
            rows[int(curve.name)][f"{kind} {strength:g}" if strength else "clean"] = accuracy
    return rows


def measured_in(run: SweepRun) -> Path:
    """Where the measurements of a run are kept."""
    return run.out / ("disturbed.csv" if run.variant in SEARCHES else "similarity.csv")


def measure(run: SweepRun) -> None:
    """Measure a finished run."""
    with threadpool_limits(1):
        rows = disturbed(run) if run.variant in SEARCHES else similarities(run)
    write_text(measured_in(run), csv_text(rows[0], (row.values() for row in rows)))


def read(run: SweepRun) -> list[Row]:
    """Read what was measured of a run: words as they are, numbers as numbers."""
    words = ("comparison", "search")
    lines = csv.DictReader(measured_in(run).read_text(encoding="utf-8").splitlines())
    known = {"data": run.name, "seed": run.seed, "encoding": run.config.problem.encoding}
    return [known | {key: text if key in words else float(text) for key, text in line.items()} for line in lines]


def relations(rows: Sequence[Row]) -> Iterator[Row]:
    """Part B for the masks of one data set and seed: how CKA goes with accuracy under disturbances."""
    samples = {"all": rows, **{search: [row for row in rows if row["search"] == search] for search in SEARCHES}}
    for (sample, masks), objective, kind in itertools.product(
        samples.items(), (OBJECTIVE, OTHER_OBJECTIVE), DISTURBANCES
    ):
        column = {key: np.array([row[key] for row in masks]) for key in masks[0] if key != "search"}
        cka, under, size = column[objective], column[kind], column["active"]
        fall, known = column["clean"] - under, (size, column["accuracy"])
        pairs = equal_pairs(size, kinds=[row["search"] for row in masks])
        yield {
            "sample": sample,
            "objective": objective,
            "disturbance": kind,
            "size": rank_correlation(cka, size),
            "accuracy": rank_correlation(cka, under),
            "accuracy, partial": rank_correlation(cka, under, known),
            "fall": rank_correlation(cka, fall),
            "fall, partial": rank_correlation(cka, fall, known),
            "pairs": len(pairs),
            "picked by CKA": gain_of_picking(cka, under, pairs),
            "fall, picked by CKA": gain_of_picking(cka, fall, pairs),
            "picked by accuracy": gain_of_picking(column["accuracy"], under, pairs),
        }


def by_data(rows: Sequence[Row], **wanted: Any) -> dict[str, list[Row]]:
    """Rows that have these values, by data set."""
    names = dict.fromkeys(row["data"] for row in rows)
    chosen = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return {name: [row for row in chosen if row["data"] == name] for name in names}


def per_seed(rows: Sequence[Row], key: str) -> list[float]:
    """Mean of a column for every seed, in their order."""
    seeds = sorted({row["seed"] for row in rows})
    return [float(np.mean([row[key] for row in rows if row["seed"] == seed])) for seed in seeds]


def tested(samples: Mapping[str, Sequence[float]]) -> dict[str, Tested]:
    """Mean with interval of each data set's sample, and p-value of a mean of 0, corrected over the data sets."""
    known = {name: [value for value in sample if np.isfinite(value)] for name, sample in samples.items()}
    adjusted = holm([t_test(sample) for sample in known.values()])
    nothing = Interval(np.nan, np.nan, np.nan, 0)
    return {
        name: (interval(sample) if sample else nothing, p_value)
        for (name, sample), p_value in zip(known.items(), adjusted, strict=True)
    }


def above_zero(result: Tested) -> bool:
    """Whether a mean is above 0, so tested."""
    mean, p_value = result
    return p_value is not None and p_value <= LEVEL and mean.mean > 0


def cell(result: Tested, digits: int = 2) -> str:
    """Mean and interval, with a star where it differs from 0."""
    mean, p_value = result
    return mean.text(digits, sign=True) + (" *" if p_value is not None and p_value <= LEVEL else "")


def in_how_many(held: Sequence[bool]) -> str:
    """In how many data sets something is so, in words."""
    return f"**{verdict(held)}** ({sum(held)} of {len(held)} data sets)"


def similarity_section(rows: Sequence[Row]) -> Iterator[str]:
    """Tables of part A, and what they say of the published pattern."""
    yield ABOUT_A
    for encoding in ENCODINGS:
        of = {comparison: by_data(rows, encoding=encoding, comparison=comparison) for comparison in COMPARISONS}
        names = list(of["best, dense"])
        table = [["", *(label for label, *_ in MEASURES.values()), "± over rows"]]
        for name, (comparison, text) in itertools.product(names, COMPARISONS.items()):
            found = of[comparison][name]
            means = [interval(per_seed(found, key)).text() for key in MEASURES]
            spread = np.mean([row["linear high"] - row["linear low"] for row in found]) / 2
            table.append([f"{name}: {text}", *means, number(float(spread))])
        yield f"### Masks of {encoding}"
        yield "\n".join(markdown_table(table))
        best = by_data(rows, encoding=encoding, comparison="best, dense")
        texts = (
            f"{name} {np.mean(per_seed(found, 'active')):.0f} bits, "
            f"{np.mean(per_seed(found, 'hamming')):.0f} from the nearest"
            for name, found in best.items()
        )
        yield f"Best masks, means over seeds: {'; '.join(texts)}."
        yield "\n".join(similarity_claims(of, names))


def similarity_claims(of: Mapping[str, Mapping[str, Sequence[Row]]], names: Sequence[str]) -> Iterator[str]:
    """One line per claim, by the rules that the text states."""

    def gaps(key: str, first: str, second: str) -> dict[str, Tested]:
        return tested(
            {
                name: np.subtract(per_seed(of[first][name], key), per_seed(of[second][name], key)).tolist()
                for name in names
            }
        )

    for comparison, (low, high) in PUBLISHED.items():
        means = {name: interval(per_seed(of[comparison][name], "weights")) for name in names}
        within = [low <= mean.mean <= high for mean in means.values()]
        level = f"{number(low, 2)} to {number(high, 2)}"
        yield f"- Published level of weight CKA, {COMPARISONS[comparison]}, {level}: {in_how_many(within)}."
    for key, (label, *_) in MEASURES.items():
        nearer = gaps(key, "best, nearest evaluated", "best, dense")
        yield (
            f"- Published order ({label}), the nearest evaluated mask is more like the best one than the unpruned "
            f"head is: {in_how_many([above_zero(result) for result in nearer.values()])}; difference "
            f"{', '.join(f'{name} {cell(nearer[name], 3)}' for name in names)}."
        )
    for key in ("linear", "weights"):
        unlike = gaps(key, "best, dense", "dense, dense restarted")
        yield (
            f"- {MEASURES[key][0]}: best and unpruned less unpruned and itself restarted: "
            f"{', '.join(f'{name} {cell(unlike[name], 3)}' for name in names)}."
        )


def outcome_table(
    rows: Sequence[Row], kinds: Sequence[str], columns: Mapping[str, tuple[Row, str]], digits: int = 2
) -> str:
    """Markdown: a line for every disturbance and data set; columns say which rows, and what of them."""
    table = [["", *columns]]
    for kind in kinds:
        results = []
        for wanted, key in columns.values():
            of = by_data(rows, disturbance=kind, **wanted)
            results.append(tested({name: per_seed(found, key) for name, found in of.items()}))
        table += [[f"{name}, {kind}", *(cell(result[name], digits) for result in results)] for name in results[0]]
    return "\n".join(markdown_table(table))


def relation_section(rows: Sequence[Row]) -> Iterator[str]:
    """Tables of part B, and the verdicts."""
    yield ABOUT_B
    yield "\n".join(relation_claims(rows))
    for objective, kinds in ((OBJECTIVE, DISTURBANCES), (OTHER_OBJECTIVE, list(MAIN))):
        wanted = {"sample": "all", "objective": objective}
        keys = ("size", "accuracy", "accuracy, partial", "fall", "fall, partial")
        yield f"### Rank correlation with {objective}"
        yield outcome_table(rows, kinds, {key: (wanted, key) for key in keys})
    yield "### Partial rank correlation with accuracy, by search"
    yield "That over all masks also holds what tells the masks of one search from those of the other."
    samples = {f"{sample} masks": {"sample": sample, "objective": OBJECTIVE} for sample in ("all", *SEARCHES)}
    yield outcome_table(rows, list(MAIN), {key: (wanted, "accuracy, partial") for key, wanted in samples.items()})
    yield "### Picking one of two masks of equal size"
    n_pairs = np.mean([row["pairs"] for row in rows if row["sample"] == "all"])
    yield (
        f"Pairs of masks of one search, at most 5 % apart in size, {n_pairs:.0f} a seed: accuracy on disturbed "
        "test rows of the one with more CKA less that of the other; the same of its fall, below 0 where it loses "
        "less; and accuracy of the one with more validation accuracy less that of the other."
    )
    wanted = {"sample": "all", "objective": OBJECTIVE}
    columns = {
        f"accuracy, by {OBJECTIVE}": (wanted, "picked by CKA"),
        f"fall, by {OBJECTIVE}": (wanted, "fall, picked by CKA"),
        "accuracy, by validation accuracy": (wanted, "picked by accuracy"),
    }
    yield outcome_table(rows, DISTURBANCES, columns, digits=3)


def relation_claims(rows: Sequence[Row]) -> Iterator[str]:
    """Whether the objective predicts robustness, by the rule that the text states."""
    for kind, words in MAIN.items():
        of = by_data(rows, sample="all", objective=OBJECTIVE, disturbance=kind)
        raw = tested({name: per_seed(found, "accuracy") for name, found in of.items()})
        partial = tested({name: per_seed(found, "accuracy, partial") for name, found in of.items()})
        picked = tested({name: per_seed(found, "picked by CKA") for name, found in of.items()})
        spared = {name: [-fall for fall in per_seed(found, "fall, picked by CKA")] for name, found in of.items()}
        sure = [name for name in of if above_zero(partial[name])]
        for name in of:
            says = (
                "predicts only through size and validation accuracy"
                if above_zero(raw[name])
                else "does not predict"
            )
            yield (
                f"- {name}: {OBJECTIVE} **{'predicts' if name in sure else says}** accuracy under {words}: rank "
                f"correlation {cell(raw[name])}, partial {cell(partial[name])}, {p_text(partial[name][1])}."
            )
        yield (
            f"- Of two masks of equal size, the one with more {OBJECTIVE} is more accurate under {words}: "
            f"{in_how_many([above_zero(result) for result in picked.values()])}; it loses less accuracy than the "
            f"other: {in_how_many([above_zero(result) for result in tested(spared).values()])}."
        )
        everywhere = in_how_many([name in sure for name in of])
        yield f"- {OBJECTIVE} predicts beyond size and validation accuracy, under {words}: {everywhere}."


def draw(similar: Sequence[Row], related: Sequence[Row], masks: Sequence[Row]) -> Axes:
    """Part A above, part B below; a column for every data set."""
    names = list(by_data(masks))
    figure = style.new_figure((2.9 * len(names) + 2.4, 7.4))
    upper, lower = figure.subplots(2, len(names), squeeze=False)
    found = by_data(related, sample="all", objective=OBJECTIVE, disturbance="noise 1")
    partial = tested({name: per_seed(of, "fall, partial") for name, of in found.items()})
    sizes = LogNorm(1, max(row["active"] for row in masks))
    for column, name in enumerate(names):
        draw_similarities(upper[column], by_data(similar, encoding="features")[name], name, column == 0)
        ax, of = lower[column], by_data(masks)[name]
        fall = [row["clean"] - row["noise 1"] for row in of]
        points = ax.scatter(
            [row[OBJECTIVE] for row in of],
            fall,
            s=8,
            c=[row["active"] for row in of],
            cmap=style.SIZES,
            norm=sizes,
            alpha=0.6,
            linewidths=0,
        )
        ax.axhline(0.0, color=style.GREY, linewidth=0.8)
        ax.set_title(f"{name}: partial {cell(partial[name])}", fontsize=style.MEDIUM)
        ax.set_xlabel(f"{OBJECTIVE}, validation rows", fontsize=style.SMALL)
        style.plain(ax)
        style.rule(ax)
    lower[0].set_ylabel("fall of test accuracy\nunder noise of 1 standard deviation", fontsize=style.SMALL)
    style.style_bar(figure.colorbar(points, ax=list(lower), fraction=0.04, pad=0.02), "active features")
    handles, labels = upper[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=style.SMALL)
    first: Axes = upper[0]
    return first


def draw_similarities(ax: Axes, rows: Sequence[Row], name: str, named: bool) -> None:
    """Means over the seeds with their intervals; a place for every comparison."""
    for place, comparison in enumerate(COMPARISONS):
        of = [row for row in rows if row["comparison"] == comparison]
        if comparison in PUBLISHED:
            low, high = PUBLISHED[comparison]
            ax.barh(
                place,
                high - low,
                left=low,
                height=0.8,
                color="#CFCFCF",
                label="" if place else "published, weights",
            )
        for offset, (key, (label, colour, marker)) in zip((-0.22, 0.0, 0.22), MEASURES.items(), strict=True):
            mean = interval(per_seed(of, key))
            half = np.nan_to_num(mean.high - mean.mean)
            ax.errorbar(
                mean.mean,
                place + offset,
                xerr=half,
                fmt=marker,
                color=colour,
                markersize=4.5,
                label="" if place else label,
            )
    ax.set_yticks(range(len(COMPARISONS)), list(COMPARISONS.values()) if named else [""] * len(COMPARISONS))
    ax.invert_yaxis()
    ax.set_xlim(-0.03, 1.03)
    ax.set_xlabel("CKA, masks of features", fontsize=style.SMALL)
    ax.set_title(name, fontsize=style.MEDIUM)
    style.plain(ax)
    style.rule(ax, "x")


def variants(budget: int, masks: int) -> dict[str, Settings]:
    """The searches of both parts."""
    objectives = ["accuracy", "active_neurons"]
    genetic = {"search.algorithm": "evo_prune_deeptl", "search.budget": budget, "problem.objectives": objectives}
    sampled = {"search.budget": masks, "problem.objectives": [*objectives, OBJECTIVE, OTHER_OBJECTIVE]}
    return {
        **{f"{GENETIC}{encoding}": {**genetic, "problem.encoding": encoding} for encoding in ENCODINGS},
        **{search: {**sampled, "search.algorithm": search} for search in SEARCHES},
    }


def carry_out(study: Study) -> None:
    budget = whole_number("--budget", study.arguments.budget, 2)
    n_masks = whole_number("--masks", study.arguments.masks, 10)
    runs = study.sweep(variants(budget, n_masks))
    todo = [run for run in runs if not measured_in(run).exists()]
    with closing(run_tasks(measure, todo, usable_jobs(study.arguments.jobs, todo))) as measured:
        for done, (run, _) in enumerate(measured, start=1):
            study.say(f"{run.variant}, {run.name}, seed {run.seed}: measured   ({done}/{len(todo)})")
    similar = [row for run in runs if run.variant not in SEARCHES for row in read(run)]
    masks = [row for run in runs if run.variant in SEARCHES for row in read(run)]
    related = [
        {"data": name, "seed": seed, **row}
        for name, of in by_data(masks).items()
        for seed in study.seeds
        for row in relations([row for row in of if row["seed"] == seed])
    ]
    study.rows += [{"part": "A", **row} for row in similar] + [{"part": "B", **row} for row in related]
    study.sections += [*similarity_section(similar), *relation_section(related)]
    about = [
        f"`{study.command}`",
        f"Seeds 1 to {study.arguments.seeds}. A: EvoPruneDeepTL's genetic algorithm for validation accuracy, "
        f"{budget} evaluations. B: {n_masks} masks each of the random and of the guided search for accuracy, "
        f"active neurons, {OBJECTIVE} and {OTHER_OBJECTIVE}; a mask is a set of features. Test rows score, and "
        "choose nothing.",
        "\n".join(f"- {describe(run.name, run.features())}" for run in {run.name: run for run in runs}.values()),
    ]
    if study.quick:
        about.insert(1, "**Quick form, a trial: nothing can be concluded.**")
    study.write("CKA: similarity and robustness", "\n\n".join(about), draw(similar, related, masks))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget", type=int, default=200, help="evaluations of the genetic algorithm (default: 200)"
    )
    parser.add_argument(
        "--masks", type=int, default=160, help="masks of the random and of the guided search (default: 160)"
    )


if __name__ == "__main__":
    quick = {"seeds": 2, "budget": 40, "masks": 40}
    sys.exit(run_study("cka_robustness", __doc__, carry_out, 5, quick, add_options))
