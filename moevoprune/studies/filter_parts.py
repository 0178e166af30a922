"""What a study of filters prunes: sets of images with their networks, in folders that name all it depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moevoprune.cli.processes import free_name
from moevoprune.errors import InputError
from moevoprune.filters.images import LabelledImages, Normalisation, load_images
from moevoprune.filters.results import PruningResult
from moevoprune.filters.settings import PruningSettings
from moevoprune.filters.steps import NetworkPruning
from moevoprune.fronts.tables import markdown_text

__all__ = ["FilterPart", "prune_parts"]


@dataclass(frozen=True, eq=False)
class FilterPart:
    """Images, the networks to be pruned on them, and how.

    Attributes
    ----------
    data, normalisation
        The images, and how they are normalised.
    settings
        Networks, searches and training; its data set and seed do not matter.
    work
        Folder of all results. Those of this part go into one inside it, named after images, settings and weights.
    """

    data: LabelledImages
    normalisation: Normalisation
    settings: PruningSettings
    work: Path

    @classmethod
    def load(cls, source: str, settings: PruningSettings, work: Path) -> FilterPart:
        """Load the images; without a mean and deviation in the settings they are normalised by their own.

        Parameters
        ----------
        source
            Of the images, see :func:`~moevoprune.filters.images.load_images`.
        settings, work
            As the attributes.

        Raises
        ------
        InputError
            The images cannot be read, or do not fit the limits on them.
        """
        data = load_images(source)
        if settings.mean is None or settings.std is None:
            normalisation = Normalisation.of(data)
        else:
            normalisation = Normalisation(settings.mean, settings.std)
        return cls(data, normalisation, settings, work)

    def prunings(self, seed: int, jobs: int, say: Callable[[str], None]) -> list[NetworkPruning]:
        """What there is to do with a seed, one for each network; parameters as :func:`prune_parts`."""
        folder = self.work / f"{free_name(self.data.name, set())}-{self._digest()}" / f"seed{seed}"
        shared = (self.settings, self.data, self.normalisation, seed, jobs, say)
        return [
            NetworkPruning(f"{name}, {self.data.name}", network, folder / name, *shared)
            for network, name in self._names().items()
        ]

    def describe(self) -> str:
        """One line of Markdown about images and settings."""
        data, settings = self.data, self.settings
        channels, height, width = data.shape
        given = settings.weights is not None
        return (
            f"{markdown_text(data.name)}: {len(data.X_train):,} training and {len(data.X_test):,} test images of "
            f"{height} x {width} x {channels}, {data.n_classes} classes; {', '.join(self._names().values())}, "
            f"{'with weights trained elsewhere' if given else 'trained here first'}. Each search: "
            f"{settings.budget} evaluations in populations of {settings.pop}. Epochs: {settings.search_epochs} on "
            f"{settings.search_images} images for each candidate, {settings.epochs} on all training images for "
            f"the final training; first step size {settings.learning_rate:g}, augmentation {settings.augment}."
        )

    def _names(self) -> dict[str, str]:
        """What the networks are called, by their architecture; of FILE.py:FUNCTION the function."""
        return {network: network.rpartition(":")[2] for network in self.settings.networks}

    def _digest(self) -> str:
        """Hash of what the results depend on, besides the seed."""
        settings = self.settings.model_dump_json(exclude={"data", "weights", "seed", "seeds"})
        weights = b"" if self.settings.weights is None else Path(self.settings.weights).read_bytes()
        content = f"{settings} {self.data.content_hash} {self.normalisation}".encode() + weights
        return hashlib.sha256(content).hexdigest()[:12]


def prune_parts(
    parts: Sequence[FilterPart], seeds: Iterable[int], jobs: int, say: Callable[[str], None]
) -> list[PruningResult]:
    """Prune all networks with all seeds; what is finished is read, and searches that were begun are gone on with.

    Parameters
    ----------
    parts
        On images of different names.
    seeds
        At least one.
    jobs
        Threads that evaluate candidates on a CPU.
    say
        Told of what happens.

    Returns
    -------
    list of PruningResult
        By part, seed, network and search.

    Raises
    ------
    InputError
        Two sets of images have the same name, or something does not fit together: found before any training. Also
        where a file cannot be written, or training diverges.
    KeyboardInterrupt
        A search was interrupted; its journal has what it has evaluated.
    """
    if len({part.data.name for part in parts}) < len(parts):
        raise InputError("two of the sets of images have the same name: name each once, or rename a file")
    seeds = list(seeds)
    for part in parts:
        for pruning in part.prunings(seeds[0], jobs, say):
            pruning.check()
    return [
        result
        for part in parts
        for seed in seeds
        for pruning in part.prunings(seed, jobs, say)
        for result in pruning.results()
    ]
