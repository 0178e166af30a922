"""``moevoprune filters``: whole convolutional networks, pruned filter by filter.

The command's options are part of every ``--help``, so what takes seconds to import is imported where it is used.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.errors import InputError, whole_number

if TYPE_CHECKING:
    from moevoprune.cli.building import Voice
    from moevoprune.filters.images import LabelledImages, Normalisation
    from moevoprune.filters.results import PruningResult
    from moevoprune.filters.settings import PruningSettings
    from moevoprune.filters.steps import NetworkPruning

__all__ = ["DESCRIPTION", "HELP", "add_arguments", "filters"]

HELP = "prune the filters of whole convolutional networks"
DESCRIPTION = (
    "Search for the filters that a convolutional network can do without, weighing error against FLOPs (after "
    "DeepPruningES), cut the heavy, the knee and the light network of the front, train them a little more, and "
    "set them beside the original and beside magnitude pruning. Without arguments: three small networks that are "
    "trained on scikit-learn's digits first."
)

SETTINGS, TABLE, SCORES, FIGURE = "settings.json", "filters.md", "filters.csv", "front.png"
_FORMAT = 1
_SHOWN_CHANGES = 3
# pixels are in 0 to 1
_LARGEST_STATISTIC = 10.0

# options that go into the settings as they are
_PLAIN = (
    *(
        "size",
        "root",
        "skip_bad",
        "weights",
        "mean",
        "std",
        "budget",
        "gens",
        "pop",
        "search_epochs",
        "search_images",
    ),
    *("epochs", "learning_rate", "augment", "distil", "baselines", "seed", "seeds", "device", "export"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help="digits (default), an .npz file of images (uint8 X_train, y_train, X_test, y_test), a folder of "
        "images in class folders, or the name of a torchvision data set",
    )
    parser.add_argument(
        "--network",
        action="append",
        metavar="N",
        help="cnn, resnet, densenet (small ones; default: these three), resnet20 to resnet110 (for CIFAR), a "
        "classification network of torchvision, or FILE.py:FUNCTION, which runs that file; may be repeated",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="its trained weights, a state dict (default: it is trained on the training images first)",
    )
    images = parser.add_argument_group("images")
    images.add_argument("--size", type=int, metavar="N", help="pixels of a side that folders and data sets get")
    images.add_argument(
        "--mean", type=float, nargs="+", metavar="M", help="mean that is subtracted, a number for each channel"
    )
    images.add_argument(
        "--std",
        type=float,
        nargs="+",
        metavar="S",
        help="deviation that is divided by (defaults of both: the training images' own)",
    )
    images.add_argument("--root", metavar="DIR", help="folder of torchvision data sets")
    images.add_argument(
        "--download", action="store_true", help="let torchvision download the data set into --root"
    )
    images.add_argument(
        "--skip-bad", action="store_true", default=None, help="leave out images of folders that cannot be read"
    )
    search = parser.add_argument_group("search")
    search.add_argument(
        "--objectives",
        metavar="A,B",
        help="error or accuracy, then flops, parameters, latency, cka:dense (default: error,flops)",
    )
    search.add_argument(
        "--algorithm",
        metavar="A[,B]",
        help="guided (default), nsga2 (plain), deep_pruning_es (the published one); several are compared",
    )
    search.add_argument("--budget", type=int, metavar="N", help="evaluations of each search (default: 200)")
    search.add_argument("--gens", type=int, metavar="N", help="generations of each search, instead of --budget")
    search.add_argument(
        "--pop", type=int, metavar="N", help="individuals per generation (default: 40; deep_pruning_es: 30)"
    )
    search.add_argument(
        "--search-epochs",
        type=int,
        metavar="N",
        help="epochs that train a candidate before it is scored (default: 1; published: 3; 0 for new batch-norm "
        "statistics only)",
    )
    search.add_argument(
        "--search-images", type=int, metavar="N", help="images that they train on (default: 256; 0 for all)"
    )
    search.add_argument(
        "--keep", nargs="+", action="extend", metavar="MODULE", help="modules whose filters all stay"
    )
    final = parser.add_argument_group("final training")
    final.add_argument("--epochs", type=int, metavar="N", help="epochs (default: 10)")
    final.add_argument(
        "--learning-rate", type=float, metavar="R", help="first step size, also of candidates (default: 0.02)"
    )
    final.add_argument("--augment", metavar="A", help="none (default), shift, or flip, which also shifts")
    final.add_argument(
        "--distil",
        action=BooleanOptionalAction,
        help="also teach networks, and candidates, what the original answers (default: no)",
    )
    final.add_argument(
        "--baselines",
        action=BooleanOptionalAction,
        help="set magnitude pruning at the knee's FLOPs beside it (default: yes)",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="the first seed (default: 1)")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds to run (default: 1)")
    parser.add_argument("--device", metavar="D", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="threads that evaluate candidates on a CPU; changes nothing but time (default: one per usable core)",
    )
    parser.add_argument("--export", metavar="F", help="also export the three networks: onnx or pt2")
    parser.add_argument("--out", metavar="DIR", help="folder (default: a new one under prunings/)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out DIR, with its settings")
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def filters(arguments: Namespace) -> int:
    """Carry out ``moevoprune filters``; returns the exit code."""
    with ExitStack() as held:
        return _filters(arguments, held)


def _filters(arguments: Namespace, held: ExitStack) -> int:
    from moevoprune.cli.building import INTERRUPTED, Voice, asked_folder, free_folder
    from moevoprune.cli.processes import free_name
    from moevoprune.device import usable_cores
    from moevoprune.locks import only_writer

    say = Voice(arguments.quiet)
    out = asked_folder(arguments, "run")
    held.enter_context(only_writer(out))
    stored = _read_settings(out) if out is not None and arguments.resume else None
    settings = _settings(arguments, stored, out)
    jobs = usable_cores() if arguments.jobs is None else whole_number("--jobs", arguments.jobs, 1, 1024)
    if out is not None and not arguments.resume:
        _check_free(out)
    data, normalisation = _images(settings, arguments.download)
    for note in data.notes:
        say(note)
    if out is None:
        out = free_folder(Path("prunings"), free_name(settings.data, set()))
        held.enter_context(only_writer(out))
    prunings = _prunings(settings, data, normalisation, out, jobs, say)
    _check_all(settings, prunings)
    record = _record(arguments, settings, data, stored, out)
    _open_folder(out, record)
    say(f"{len(prunings)} networks to prune, into {out}" if len(prunings) > 1 else f"into {out}")
    try:
        results = [result for pruning in prunings for result in pruning.results()]
        _write_results(out, results, record["command"], settings, data)
    except KeyboardInterrupt:
        go_on = f"moevoprune filters --out {shlex.quote(str(out))} --resume"
        if any(":" in name for name in settings.networks):
            go_on += f" {_network_options(settings.networks)}"
        say(f"interrupted; to go on: {go_on}")
        return INTERRUPTED
    _print_tables(results, say)
    say(f"\nwritten to {out}: {TABLE}, {SCORES}, {FIGURE}, and a folder for each network")
    return 0


def _settings(arguments: Namespace, stored: dict[str, Any] | None, out: Path | None) -> PruningSettings:
    """What the options ask for; of a run that is resumed, what it was started with."""
    from moevoprune.cli.data import from_here
    from moevoprune.filters.images import BUILT_IN
    from moevoprune.filters.settings import PruningSettings

    given: dict[str, Any] = {name: getattr(arguments, name) for name in _PLAIN}
    given |= {
        "data": arguments.data,
        "networks": arguments.network and [_network_from_here(name) for name in arguments.network],
        "objectives": _words("--objectives", arguments.objectives),
        "algorithms": _words("--algorithm", arguments.algorithm),
        "keep": arguments.keep,
    }
    for name, key in (("data", "data.images"), ("weights", "backbone.weights"), ("root", "data.root")):
        if given[name] == "":
            raise InputError(f"{name} is empty: name a file or a folder, or leave it out")
        if given[name] is not None and given[name] not in BUILT_IN:
            # a run may be resumed from elsewhere
            given[name] = from_here(key, given[name])
    chosen = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    if stored is None:
        return PruningSettings.checked(chosen)
    before = stored["settings"]
    _check_code(before["networks"], given["networks"], out)
    settings = PruningSettings.checked({**before, **chosen})
    changes = [
        f"{name}: {_shown(before.get(name, PruningSettings.model_fields[name].default))} → {_shown(value)}"
        for name, value in settings.model_dump().items()
        if value != before.get(name, PruningSettings.model_fields[name].default)
    ]
    _refuse(out, changes)
    return settings


def _check_code(stored: Sequence[str], given: Sequence[str] | None, out: Path | None) -> None:
    """Python files run only where the command line names them: settings may come from somebody else."""
    code = [name for name in stored if ":" in name]
    if code and not given:
        raise InputError(
            f"{out}: its networks are made by Python code, which is run: look at it, and name it again to go on: "
            f"{_network_options(stored)}"
        )


def _network_options(networks: Sequence[str]) -> str:
    return " ".join(f"--network {shlex.quote(name)}" for name in networks)


def _refuse(out: Path | None, changes: Sequence[str]) -> None:
    if changes:
        more = f" and {len(changes) - _SHOWN_CHANGES} more" if len(changes) > _SHOWN_CHANGES else ""
        raise InputError(
            f"{out}: cannot resume, settings changed ({'; '.join(changes[:_SHOWN_CHANGES])}{more}): give the same "
            "settings, or choose another --out folder"
        )


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _network_from_here(name: str) -> str:
    """Make the path in FILE.py:FUNCTION absolute, as a run may be resumed from elsewhere."""
    path, colon, function = name.rpartition(":")
    return f"{Path(path).absolute()}:{function}" if colon else name


def _words(option: str, text: str | None) -> list[str] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise InputError(f"{option} is empty: name something, or leave it out")
    return words


def _images(settings: PruningSettings, download: bool) -> tuple[LabelledImages, Normalisation]:
    from moevoprune.filters.images import Normalisation, load_images

    data = load_images(settings.data, settings.size, settings.root, download, settings.skip_bad)
    if settings.mean is None or settings.std is None:
        return data, Normalisation.of(data)
    normalisation = Normalisation(settings.mean, settings.std)
    if max(map(abs, normalisation.mean + normalisation.std)) > _LARGEST_STATISTIC:
        raise InputError("--mean and --std are for pixels in 0 to 1: divide those for 0 to 255 by 255")
    channels = data.shape[0]
    if len(normalisation.mean) != channels:
        raise InputError(
            f"--mean and --std have {len(normalisation.mean)} numbers, but {data.name} has images of {channels} "
            f"channel{'' if channels == 1 else 's'}: give one for each"
        )
    return data, normalisation


def _prunings(
    settings: PruningSettings,
    data: LabelledImages,
    normalisation: Normalisation,
    out: Path,
    jobs: int,
    say: Voice,
) -> list[NetworkPruning]:
    """All networks with all seeds, in the order in which they are pruned."""
    from moevoprune.cli.processes import free_name
    from moevoprune.filters.steps import NetworkPruning

    names: list[str] = []
    for network in settings.networks:
        # of FILE.py:FUNCTION the function
        names.append(free_name(network.rpartition(":")[2], {name.casefold() for name in names}))
    prunings = []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        folder = out / f"seed{seed}" if settings.seeds > 1 else out
        for name, network in zip(names, settings.networks, strict=True):
            prunings.append(
                NetworkPruning(name, network, folder / name, settings, data, normalisation, seed, jobs, say)
            )
    return prunings


def _check_all(settings: PruningSettings, prunings: Sequence[NetworkPruning]) -> None:
    """Try everything that could fail, before the first network is trained."""
    from moevoprune.fronts.export import check_installed

    if settings.export is not None:
        check_installed(f".{settings.export}")
    for pruning in prunings[: len(settings.networks)]:
        pruning.check()


def _read_settings(out: Path) -> dict[str, Any]:
    from moevoprune.cli.config import exists
    from moevoprune.files import read_text
    from moevoprune.filters.settings import PruningSettings

    path = out / SETTINGS
    if not exists(path):
        raise InputError(f"{out}: holds no {SETTINGS}, so there is nothing to resume: leave --resume out")
    try:
        stored = json.loads(read_text(path))
        whole = stored["format"] == _FORMAT and all(
            isinstance(stored[key], kind)
            for key, kind in (("command", str), ("settings", dict), ("data_sha256", str), ("moevoprune", str))
        )
        # in JSON tuples are lists
        settings = PruningSettings.checked(_with_tuples(stored["settings"])) if whole else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        settings = None
    if settings is None:
        raise InputError(f"{path}: is damaged: choose another --out folder")
    return {**stored, "settings": settings.model_dump()}


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _record(
    arguments: Namespace,
    settings: PruningSettings,
    data: LabelledImages,
    stored: dict[str, Any] | None,
    out: Path,
) -> dict[str, Any]:
    """What settings.json holds; refused where files have changed since it was written."""
    weights = None if settings.weights is None else _file_hash(settings.weights)
    record = {
        "format": _FORMAT,
        "moevoprune": version("moevoprune"),
        "command": _command(arguments) if stored is None else stored["command"],
        "settings": settings.model_dump(mode="json"),
        "data_sha256": data.content_hash,
        "weights_sha256": weights,
    }
    if stored is not None:
        named = {
            "moevoprune": "moevoprune",
            "data_sha256": "content of DATA",
            "weights_sha256": "content of --weights",
        }
        _refuse(
            out,
            [
                f"{name}: {str(stored.get(key))[:16]} → {str(record[key])[:16]}"
                for key, name in named.items()
                if stored.get(key) != record[key]
            ],
        )
    return record


def _file_hash(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _check_free(out: Path) -> None:
    from moevoprune.cli.config import exists
    from moevoprune.locks import LOCK

    if exists(out) and not (out.is_dir() and all(path.name == LOCK for path in out.iterdir())):
        what = (
            "holds another run: add --resume to continue it, or" if exists(out / SETTINGS) else "exists already:"
        )
        raise InputError(f"{out}: {what} choose another --out folder")


def _open_folder(out: Path, record: dict[str, Any]) -> None:
    from moevoprune.files import remove_leftovers, write_text
    from moevoprune.fronts.plots.style import make_folder

    make_folder(out)
    for folder in (out, *(path for path in out.rglob("*") if path.is_dir())):
        remove_leftovers(folder)
    write_text(out / SETTINGS, json.dumps(record, indent=2) + "\n")


def _write_results(
    out: Path,
    results: Sequence[PruningResult],
    command: str,
    settings: PruningSettings,
    data: LabelledImages,
) -> None:
    from moevoprune.files import write_text
    from moevoprune.filters.plots import plot_filter_fronts
    from moevoprune.filters.tables import report, scores_csv
    from moevoprune.fronts.plots.style import save_figure

    write_text(out / TABLE, report(results, command, [_about(settings, data)]))
    write_text(out / SCORES, scores_csv(results))
    save_figure(plot_filter_fronts(results), out / FIGURE)


def _about(settings: PruningSettings, data: LabelledImages) -> str:
    """What was done to what, in a sentence or two."""
    channels, height, width = data.shape
    end = settings.end
    until = _counted(end["budget"], "evaluation") if end["n_gen"] is None else _counted(end["n_gen"], "generation")
    candidates = "new batch-norm statistics only"
    if settings.search_epochs:
        images = f"{settings.search_images:,} images" if settings.search_images else "all images"
        candidates = f"{_counted(settings.search_epochs, 'epoch')} on {images}"
    taught = ", taught by the original" if settings.distil else ""
    return (
        f"{data.name}: {len(data.X_train):,} training and {len(data.X_test):,} test images of {height} x {width} "
        f"pixels and {_counted(channels, 'channel')}, {data.n_classes} classes. Each search: {until}. Candidates: "
        f"{candidates}. Final training: {_counted(settings.epochs, 'epoch')}{taught}. First step size: "
        f"{settings.learning_rate:g}."
    )


def _counted(number: int | None, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _print_tables(results: Sequence[PruningResult], say: Voice) -> None:
    from moevoprune.filters.tables import network_table, search_table
    from moevoprune.fronts.tables import aligned

    several = len({result.algorithm for result in results}) > 1
    say("")
    for line in aligned(network_table(results), left=3 if several else 2):
        say(line)
    if several:
        say("")
        for line in aligned(search_table(results), left=2):
            say(line)


def _command(arguments: Namespace) -> str:
    """What was typed, but for what does not change the results."""
    words = ["moevoprune", "filters", *([] if arguments.data is None else [arguments.data])]
    for network in arguments.network or []:
        words += ["--network", network]
    for name in ("objectives", "algorithm", *_PLAIN, "keep"):
        value, option = getattr(arguments, name), f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        elif value is not None:
            words += [option, *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)
