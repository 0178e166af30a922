"""DeepPruningES's three networks: how much do they lose, and does magnitude pruning do as well at equal FLOPs?

DeepPruningES (arXiv 1912.11527) returns three pruned networks, boundary heavy, knee and boundary light. Its
search and our guided one, at equal evaluations, prune a CNN, a ResNet and a DenseNet on scikit-learn's digits,
and a ResNet-20 on images of CIFAR-10 where these and its weights are named, as `moevoprune filters` does it. The
three networks get the same final training as the original and as magnitude pruning at the knee's FLOPs. Networks
are chosen by validation images; the test images score them. Whatever is finished is kept in --work, and searches
begun are gone on with.

    python experiments/filter_pruning.py --quick
    python experiments/filter_pruning.py digits cifar10_small.npz --weights resnet20_cifar10.pth \\
        --mean .485 .456 .406 --std .229 .224 .225
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import Study, number, p_cell, paired_table, run_study, shown_higher, verdict

from moevoprune import InputError
from moevoprune.cli.processes import free_name
from moevoprune.device import usable_cores
from moevoprune.filters.baselines import METHODS
from moevoprune.filters.finishing import ORIGINAL, ORIGINAL_TUNED
from moevoprune.filters.images import BUILT_IN, LabelledImages, Normalisation, load_images
from moevoprune.filters.plots import plot_filter_fronts
from moevoprune.filters.results import CHOSEN, NetworkScore, PruningResult
from moevoprune.filters.settings import PruningSettings
from moevoprune.filters.steps import NetworkPruning
from moevoprune.fronts.statistics import holm, interval, no_worse
from moevoprune.fronts.tables import markdown_table

PUBLISHED, OURS = "deep_pruning_es", "guided"
SEARCHES = {PUBLISHED: "DeepPruningES", OURS: "Guided"}
BASELINES = tuple(method.role for method in METHODS.values())

# with these populations both searches end after the same number of evaluations
BUILT_IN_FORM = {"pop": 30, "budget": 300}
FILE_FORM = {"pop": 12, "budget": 48, "search_images": 320, "epochs": 2, "augment": "flip"}
QUICK_FORM = {"pop": 6, "budget": 12, "search_images": 64, "epochs": 1}

# fixed before any result was seen
MOST_FLOPS, MARGIN, LEVEL = 0.5, 0.02, 0.05

Groups = Mapping[tuple[str, str], Sequence[PruningResult]]


@dataclass(frozen=True, eq=False)
class Part:
    """Images, the networks to be pruned on them, and how; results go into a folder named after all of it."""

    data: LabelledImages
    normalisation: Normalisation
    settings: PruningSettings
    work: Path

    def prunings(self, seed: int, jobs: int, say: Callable[[str], None]) -> list[NetworkPruning]:
        """One for each network."""
        folder = self.work / f"{free_name(self.data.name, set())}-{self._digest()}" / f"seed{seed}"
        shared = (self.settings, self.data, self.normalisation, seed, jobs, say)
        names = {network: network.rpartition(":")[2] for network in self.settings.networks}
        return [
            NetworkPruning(f"{name}, {self.data.name}", network, folder / name, *shared)
            for network, name in names.items()
        ]

    def _digest(self) -> str:
        """Hash of what the results depend on, besides the seed."""
        settings = self.settings.model_dump_json(exclude={"data", "weights", "seed", "seeds"})
        weights = b"" if self.settings.weights is None else Path(self.settings.weights).read_bytes()
        content = f"{settings} {self.data.content_hash} {self.normalisation}".encode() + weights
        return hashlib.sha256(content).hexdigest()[:12]


def carry_out(study: Study) -> None:
    parts = [part_of(source, study) for source in study.arguments.data]
    if len({part.data.name for part in parts}) < len(parts):
        raise InputError("two of the sets of images have the same name: name each once, or rename a file")
    jobs = study.arguments.jobs or usable_cores()
    for part in parts:
        for pruning in part.prunings(study.seeds[0], jobs, study.say):
            pruning.check()
    results = [
        result
        for part in parts
        for seed in study.seeds
        for pruning in part.prunings(seed, jobs, study.say)
        for result in pruning.results()
    ]
    groups: dict[tuple[str, str], list[PruningResult]] = {}
    for result in results:
        groups.setdefault((result.network, result.algorithm), []).append(result)
    study.rows += [line for result in results for line in csv_lines(result)]
    study.sections += [
        "\n".join(f"* {describe(part)}" for part in parts),
        "\n".join(markdown_table(networks_table(groups))),
        three_networks(groups),
        little_loss(groups),
        against_magnitude(groups),
        searches(groups),
    ]
    study.write("Filters of whole networks (DeepPruningES)", heading(study), plot_filter_fronts(results))


def part_of(source: str, study: Study) -> Part:
    """What to prune on a set of images."""
    arguments = study.arguments
    chosen: dict[str, Any] = {"algorithms": tuple(SEARCHES), "seeds": len(study.seeds)}
    if source in BUILT_IN:
        chosen |= BUILT_IN_FORM
    else:
        chosen |= {**FILE_FORM, "networks": (arguments.network,), "weights": arguments.weights}
        chosen |= {name: getattr(arguments, name) and tuple(getattr(arguments, name)) for name in ("mean", "std")}
    settings = PruningSettings.checked({**chosen, **(QUICK_FORM if study.quick else {})})
    if settings.weights is not None and not Path(settings.weights).is_file():
        raise InputError(f"--weights {settings.weights}: is no file")
    data = load_images(source)
    if settings.mean is None or settings.std is None:
        normalisation = Normalisation.of(data)
    else:
        normalisation = Normalisation(settings.mean, settings.std)
    return Part(data, normalisation, settings, arguments.work)


def describe(part: Part) -> str:
    """One line about images and settings."""
    data, settings = part.data, part.settings
    channels, height, width = data.shape
    given = settings.weights is not None
    names = ", ".join(network.rpartition(":")[2] for network in settings.networks)
    return (
        f"{data.name}: {len(data.X_train):,} training and {len(data.X_test):,} test images of {height} x {width} "
        f"x {channels}, {data.n_classes} classes; {names}, "
        f"{'with weights trained elsewhere' if given else 'trained here first'}. Each search: {settings.budget} "
        f"evaluations in populations of {settings.pop}. Epochs: {settings.search_epochs} on "
        f"{settings.search_images} images for each candidate, {settings.epochs} on all training images for the "
        f"final training; first step size {settings.learning_rate:g}, augmentation {settings.augment}."
    )


def heading(study: Study) -> str:
    """What was run, and how to read it."""
    paragraphs = [
        f"`{study.command}`",
        f"Means with 95 % intervals (Student's) over seeds 1 to {len(study.seeds)}. A seed changes the fifth of "
        "the training images that scores candidates, the images that candidates are trained on, the search and "
        "the order of the batches; where the network is trained here, its start weights and training too. "
        "Weights trained elsewhere and the test images stay the same. The network had been trained on the "
        "images that score its candidates, elsewhere or here, so validation errors are too low; the test errors "
        "are not, as the test images are read once, when all networks are chosen and trained. FLOPs are "
        "multiply-accumulates for one image.",
        "Settings were chosen by cost, before any result was seen. As published are the objectives, the three "
        "networks, and start, flip probability and elites of DeepPruningES's search; with populations of 30 its "
        "300 evaluations are its 11 generations. Not as published are the networks (smaller), the training of "
        "candidates and the final training (shorter). The paper's tables are not known to us: what is tested "
        "are its claims.",
    ]
    if study.quick:
        paragraphs.insert(1, "A trial: from the quick form nothing can be concluded.")
    return "\n\n".join(paragraphs)


def found(results: Sequence[PruningResult], role: str) -> list[tuple[NetworkScore, NetworkScore]]:
    """The networks of a role, each with the original of its seed; none for seeds that have no such network."""
    pairs = ((result.score(role), result.score(ORIGINAL)) for result in results)
    return [(score, original) for score, original in pairs if score is not None and original is not None]


def errors(results: Sequence[PruningResult], role: str) -> list[float]:
    """Test errors in per cent, by seed."""
    return [100 * score.test_error for score, _ in found(results, role)]


def flops_left(results: Sequence[PruningResult], role: str) -> list[float]:
    """FLOPs in per cent of the original's, by seed."""
    return [100 * score.flops / original.flops for score, original in found(results, role)]


def shown_share(values: Sequence[float]) -> str:
    """Write a percentage with its interval; the whole as it is."""
    return "100" if set(values) == {100.0} else interval(values).text(1)


def networks_table(groups: Groups) -> list[list[str]]:
    """One row per network, search and role."""
    table = [["network", "search", "which", "seeds", "test error, %", "FLOPs left, %", "parameters left, %"]]
    shown: set[str] = set()
    for (network, search), results in groups.items():
        shared = () if network in shown else (ORIGINAL, ORIGINAL_TUNED)
        shown.add(network)
        for role in (*shared, *CHOSEN, *BASELINES):
            if networks := found(results, role):
                parameters = [100 * score.parameters / original.parameters for score, original in networks]
                name = "" if role in shared else SEARCHES[search]
                error = interval(errors(results, role)).text(2)
                shares = [shown_share(values) for values in (flops_left(results, role), parameters)]
                table.append([network, name, role, str(len(networks)), error, *shares])
    return table


def three_networks(groups: Groups) -> str:
    """Claim 1: three networks come back."""
    parts = ["## Do three networks come back?", "Rule: in every run heavy, knee and light differ in FLOPs."]
    for search, words in SEARCHES.items():
        runs = [result for (_, algorithm), results in groups.items() if algorithm == search for result in results]
        different = [len({score.flops for role in CHOSEN if (score := run.score(role))}) == 3 for run in runs]
        parts.append(f"{words}: in {sum(different)} of {len(runs)} runs. **The claim {verdict(different)}.**")
    return "\n\n".join(parts)


def little_loss(groups: Groups) -> str:
    """Claim 2: FLOPs go, and little accuracy with them."""
    parts = [
        "## Do FLOPs go with little loss?",
        f"Rule, per network: the upper limit of the FLOPs left is at most {100 * MOST_FLOPS:.0f} %, and a paired "
        f"one-sided test shows that less than {100 * MARGIN:.0f} points of test accuracy are lost against the "
        "original after the same final training (p after Holm's correction over the networks at most "
        f"{number(LEVEL, 2)}). Both limits were fixed beforehand.",
    ]
    for search, words in SEARCHES.items():
        for role in ("knee", "heavy"):
            own = {network: results for (network, algorithm), results in groups.items() if algorithm == search}
            # higher is better there
            tests = {
                name: no_worse(
                    *([-error for error in errors(results, one)] for one in (role, ORIGINAL_TUNED)), 100 * MARGIN
                )
                for name, results in own.items()
            }
            adjusted = holm([test.p_value for test in tests.values()])
            table = [[f"{words}, {role}", "FLOPs left, %", "points gained", "at least", "p", "p, Holm", "holds"]]
            held = []
            for (name, test), corrected in zip(tests.items(), adjusted, strict=True):
                left = interval(flops_left(own[name], role))
                # without any spread there is no p-value, and the limit decides
                shown = test.shown and (corrected is None or corrected <= LEVEL)
                held.append(shown and left.high <= 100 * MOST_FLOPS)
                numbers = [test.difference.text(2, sign=True), number(test.lower, 2, sign=True)]
                p_values = [p_cell(test.p_value), p_cell(corrected)]
                table.append([name, left.text(1), *numbers, *p_values, "yes" if held[-1] else "no"])
            parts += [
                "\n".join(markdown_table(table)),
                f"{words}, {role}: **the claim {verdict(held)}** ({sum(held)} of {len(held)} networks).",
            ]
    parts.append(
        "For comparison, of the state of the art: SMOEA and CCEP report ResNet-56 on CIFAR-10 with 63 % of the "
        "FLOPs gone and no loss, after hundreds of epochs of training; other network, all 50,000 training "
        "images."
    )
    return "\n\n".join(parts)


def against_magnitude(groups: Groups) -> str:
    """Whether the search is worth it: knees against magnitude pruning at equal FLOPs."""
    parts = [
        "## Is the knee ahead of magnitude pruning at equal FLOPs?",
        "Test errors in per cent, paired by seed; a negative difference is in the knee's favour. Rule, per "
        f"network: the knee errs less, p after Holm's correction over the networks at most {number(LEVEL, 2)}. "
        "Seeds in which magnitude pruning does not get to so few FLOPs are left out.",
    ]
    for search, words in SEARCHES.items():
        for baseline in BASELINES:
            pairs = {}
            for (network, algorithm), results in groups.items():
                both = [result for result in results if result.score(baseline) is not None]
                if algorithm == search and both:
                    pairs[network] = errors(both, "knee"), errors(both, baseline)
            if pairs:
                ahead = shown_higher({name: (theirs, ours) for name, (ours, theirs) in pairs.items()}, LEVEL)
                parts += [
                    paired_table(pairs, f"knee, {words}", baseline, 2),
                    f"{words}'s knee is ahead of {baseline} on {sum(ahead.values())} of {len(ahead)} networks: "
                    f"**that it is ahead {verdict(ahead.values())}**.",
                ]
    return "\n\n".join(parts)


def searches(groups: Groups) -> str:
    """Our search against the published one, at equal evaluations."""
    networks = dict.fromkeys(network for network, _ in groups)
    table = [["network", "search", "evaluations", "hypervolume", "filters kept by the knee, %"]]
    pairs = {}
    for network in networks:
        for search, words in SEARCHES.items():
            results = groups[network, search]
            volumes = [result.front.hypervolume for result in results]
            pairs[network] = (volumes, *pairs.get(network, ()))
            kept = [100 * float(result.front.masks[result.front.choices.knee].mean()) for result in results]
            evaluations = "/".join(dict.fromkeys(f"{result.cost.evaluations:,}" for result in results))
            table.append([network, words, evaluations, interval(volumes).text(), interval(kept).text(1)])
    ahead = shown_higher(pairs, LEVEL)
    return "\n\n".join(
        [
            "## Is the guided search ahead of DeepPruningES's at equal evaluations?",
            "Hypervolume: the area that validation error and share of FLOPs dominate up to the corner (1, 1). "
            "Rule, per network: it is larger, p of the paired test after Holm's correction at most "
            f"{number(LEVEL, 2)}.",
            "\n".join(markdown_table(table)),
            paired_table(pairs, SEARCHES[OURS], SEARCHES[PUBLISHED]),
            f"**That the guided search is ahead {verdict(ahead.values())}** ({sum(ahead.values())} of "
            f"{len(ahead)} networks).",
        ]
    )


def csv_lines(result: PruningResult) -> list[dict[str, Any]]:
    """All networks of a run."""
    original = result.score(ORIGINAL)
    return [
        {
            "network": result.network,
            "search": result.algorithm,
            "seed": result.seed,
            "which": score.role,
            "test_error": score.test_error,
            "test_error_before_tuning": score.test_error_before,
            "validation_error": score.validation_error,
            "flops": score.flops,
            "flops_left": score.flops / original.flops if original else None,
            "parameters": score.parameters,
            "hypervolume": result.front.hypervolume,
            "evaluations": result.cost.evaluations,
        }
        for score in result.scores
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    images = parser.add_argument_group("networks for .npz files of images")
    images.add_argument(
        "--network", default="resnet20", metavar="N", help="as `moevoprune filters` takes it (default: resnet20)"
    )
    images.add_argument(
        "--weights", metavar="FILE", help="its trained weights (default: it is trained here first)"
    )
    images.add_argument(
        "--mean", type=float, nargs="+", metavar="M", help="what the weights' inputs were centred by"
    )
    images.add_argument(
        "--std", type=float, nargs="+", metavar="S", help="and divided by (defaults: the training images' own)"
    )


def main() -> int:
    return run_study(
        "filter_pruning",
        __doc__,
        carry_out,
        seeds=3,
        quick={"seeds": 2},
        add_options=add_options,
        data_help="digits (default), .npz files of images (uint8 X_train, y_train, X_test, y_test)",
    )


if __name__ == "__main__":
    sys.exit(main())
