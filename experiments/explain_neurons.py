"""Are a few neurons active in nearly all members of the merged front, and do these few matter?

MO-EvoPruneDeepTL (arXiv 2302.10253) counts how often each neuron (here: feature of the backbone) is active over
the merged front of its runs, and shows heat maps of the ten most frequent. This counts them too, sets what chance
would give beside it, tells whether runs agree, and trains heads of ten neurons alone. The runs are those of
multi_objective.py: with its --work they are not run again. For images (a .toml file with [data] images and
[backbone]) it draws the heat maps. Out-of-distribution rows are the other data sets of the same kind.

    python experiments/explain_neurons.py --quick
    python experiments/explain_neurons.py leaves_citrus.npz hymenoptera.npz trashnet.toml leaves_images.toml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import quote

from moevoprune.cli.building import read_problem
from moevoprune.cli.sweeping import SweepRun
from moevoprune.files import write_text
from moevoprune.studies.digit_images import digits_as_images
from moevoprune.studies.frequent_neurons import TOP, Neurons, core_claims, frequency_table, ten_table
from moevoprune.studies.frequent_neurons_figure import draw_frequencies
from moevoprune.studies.merged_heat_maps import save_merged_heat_maps
from moevoprune.studies.saying import describe
from moevoprune.studies.small_heads import rival_claims, rival_tables, small_heads, small_heads_table
from moevoprune.studies.study import Study, run_study
from moevoprune.studies.two_searches import BUDGET, OURS, PUBLISHED, SEEDS, grouped, variants

IMAGE_SEEDS = 5


def digit_images(folder: Path) -> list[str]:
    """Write the digits as two problems of images, 0-4 and 5-9, for a small network with random weights."""
    digits_as_images(folder / "digits")
    problems = []
    for name, digits in (("low_digits", range(5)), ("high_digits", range(5, 10))):
        for digit in digits:
            where = folder / name / str(digit)
            where.parent.mkdir(parents=True, exist_ok=True)
            if not where.exists():
                (folder / "digits" / str(digit)).rename(where)
        backbone = 'name = "mobilenet_v3_small"\nweights = "none"\nsize = 64\ncrop = 64\n'
        write_text(folder / f"{name}.toml", f'[data]\nimages = "{name}"\n\n[backbone]\n{backbone}')
        problems.append(str(folder / f"{name}.toml"))
    return problems


def sweep(study: Study) -> list[SweepRun]:
    """Run the searches, or take them up: those on images with fewer seeds, and images among themselves."""
    sources = study.arguments.data
    if sources == ["digits"]:
        sources = digit_images(study.arguments.work.absolute() / "data")
    with_images = [source for source in sources if "images" in read_problem(source)[1].get("data", {})]
    searches = variants(study.arguments.budget)
    swept = []
    if others := [source for source in sources if source not in with_images]:
        swept += study.sweep(searches, study.with_others_as_ood(others))
    if with_images:
        seeds = range(1, min(len(study.seeds), IMAGE_SEEDS) + 1)
        swept += study.sweep(searches, study.with_others_as_ood(with_images), seeds)
    return swept


def ten_section(study: Study, run: SweepRun, neurons: Neurons) -> str:
    """The ten most frequent neurons of a data set: a table, and for images the heat maps."""
    section = f"## The ten most frequent neurons of {run.name}\n\n{ten_table(neurons)}"
    if run.config.data.images is None:
        return section
    path = study.arguments.out / f"{study.arguments.name}_{run.name}{'_quick' if study.quick else ''}.png"
    save_merged_heat_maps(run, neurons, path)
    return f"{section}\n\n![Heat maps of {run.name}]({quote(path.name)})"


def carry_out(study: Study) -> None:
    """Run the searches, and write down which neurons they chose."""
    swept = sweep(study)
    found = {(runs.data, runs.variant): Neurons.of(runs) for runs in grouped(swept)}
    heads = small_heads(swept, found)
    examples = {run.name: run for run in swept}
    for (data, variant), neurons in found.items():
        rows = neurons.explanation.to_rows()[: 2 * TOP]
        study.rows += [{"data": data, "search": variant, **row} for row in rows]
    study.sections += [
        "\n".join(f"* {describe(name, run.features())}" for name, run in examples.items()),
        "## How many neurons are active in how many members\n\nIn brackets what chance gives on average: "
        "independent masks of the same sizes; the runs' own masks with neurons exchanged run by run. Spearman's "
        "correlation of the frequencies in two runs' fronts is the mean over pairs of runs [95 % interval, "
        "jackknife over runs].\n\n"
        f"{frequency_table(found)}",
        "## Heads of ten neurons\n\nAccuracy, validation / test, means over the seeds of heads that read ten "
        "neurons: the most frequent of the seed's own run, those of the merged front (which has seen all seeds' "
        "folds), the ten best by ANOVA's F on the training rows (validation rows among them, so that its "
        f"validation accuracy flatters), and ten at random.\n\n{small_heads_table(heads)}",
        f"Test accuracy, the ten of each run, paired by seed:\n\n{rival_tables(heads)}",
        *(ten_section(study, run, found[data, OURS]) for data, run in examples.items()),
    ]
    claims = [[*core_claims(found, search), *rival_claims(heads, search)] for search in (PUBLISHED, OURS)]
    study.sections.append("## Claims\n\n" + "\n".join(line for of_search in claims for line in of_search))
    study.write("Neurons that the members of merged fronts share", about(study), draw_frequencies(found))


def about(study: Study) -> str:
    """What was run."""
    quick = "Quick form: nothing can be concluded from it. " if study.quick else ""
    images = f" ({IMAGE_SEEDS} where the data are images)" if len(study.seeds) > IMAGE_SEEDS else ""
    return (
        f"`{study.command}`\n\n{quick}How often each neuron (feature of the backbone) is active over the merged "
        f"front of {len(study.seeds)} runs{images}, the searches *{PUBLISHED}* and *{OURS}* being those of "
        f"multi_objective.py with {study.arguments.budget} evaluations. Test rows choose nothing. What the paper "
        "reports of it is not known to us beyond its method. Heat maps are Grad-CAM on the last feature map, one "
        "test image per class."
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the option of this experiment."""
    parser.add_argument("--budget", type=int, default=BUDGET, help=f"evaluations of a search (default: {BUDGET})")


if __name__ == "__main__":
    sys.exit(run_study("explain_neurons", __doc__, carry_out, SEEDS, {"seeds": 2, "budget": 60}, add_options))
