"""A small, real transfer-learning task that needs no download: handwritten digits."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.features.feature_set import FeatureSet
from moevoprune.files import cache_folder, make_folder

if TYPE_CHECKING:
    import torch

__all__ = ["load_digits_features"]

# raise it when the code below changes what is computed in a way that _Recipe does not show
_VERSION = 1


@dataclass(frozen=True)
class _Recipe:
    """Every constant that the result depends on; part of the cache file's name."""

    first_target_class: int = 5
    source_train_share: float = 0.7
    target_train_share: float = 0.75
    channels: tuple[int, int, int] = (16, 32, 64)
    n_features: int = 128
    # few epochs and globally pooled features: enough for the whole layer to serve the new classes
    # well, not so much that a handful of its units does
    epochs: int = 8
    batch_size: int = 32
    learning_rate: float = 1e-3
    smallest_patch_scale: int = 4
    largest_patch_scale: int = 12
    seed: int = 1


_RECIPE = _Recipe()


def load_digits_features(cache_dir: Path | None = None) -> FeatureSet:
    """Features of the digits 5-9 from a network trained on the digits 0-4.

    scikit-learn's bundled digits (1797 grey images of 8x8 pixels, scaled to 0..1) are split by class. A
    small convolutional network is trained on 70 % of the digits 0-4 and frozen. The task is to tell the
    digits 5-9 apart by its 128 features (each >= 0). Out-of-distribution rows are the other 30 % of the
    digits 0-4 and about as many patches of scikit-learn's two sample photographs.

    The first call trains (seconds on one core) and keeps the result in the cache folder; later calls
    read it. Both give the same arrays, bit for bit, on one machine. No global random state is used.

    Parameters
    ----------
    cache_dir : Path, optional
        Cache folder. Default: the environment variable MOEVOPRUNE_CACHE, else the user's cache folder.
        A damaged file there is made anew; a folder that cannot be written to is done without.

    Returns
    -------
    FeatureSet
        Named "digits": 128 features, 5 classes named "5" to "9", split 75/25 into training and test
        rows, with `X_ood` and without validation rows.
    """
    folder = cache_folder(cache_dir)
    path = None if folder is None else folder / _cache_file_name()
    if path is not None:
        with contextlib.suppress(InputError, OSError):
            return replace(FeatureSet.load(path), name="digits")
    features = _compute(_RECIPE)
    if path is not None:
        with contextlib.suppress(InputError, OSError):
            make_folder(path.parent)
            features.save(path)
    return features


def _cache_file_name() -> str:
    recipe = json.dumps(asdict(_RECIPE), sort_keys=True)
    digest = hashlib.sha256(recipe.encode("ascii")).hexdigest()[:12]
    try:
        # asked of the installation, not of the module: a cache hit then needs no import of torch
        torch_version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch_version = "unknown"
    return f"digits-v{_VERSION}-{digest}-torch{torch_version}.npz"


def _compute(recipe: _Recipe) -> FeatureSet:
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    images = (pixels / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    digit = np.asarray(digit, dtype=np.int64)
    split_rng, order_rng, patch_rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence(recipe.seed).spawn(3)
    )

    is_source = digit < recipe.first_target_class
    source_train, source_held = _stratified_split(
        np.flatnonzero(is_source), digit, recipe.source_train_share, split_rng
    )
    target_train, target_test = _stratified_split(
        np.flatnonzero(~is_source), digit, recipe.target_train_share, split_rng
    )
    ood_images = np.concatenate([images[source_held], _photo_patches(len(source_held), recipe, patch_rng)])

    with _reproducible_torch():
        backbone = _train(images[source_train], digit[source_train], recipe, order_rng)
        x_train = backbone(images[target_train])
        x_test = backbone(images[target_test])
        x_ood = backbone(ood_images)
    return FeatureSet(
        X_train=x_train,
        y_train=digit[target_train] - recipe.first_target_class,
        X_test=x_test,
        y_test=digit[target_test] - recipe.first_target_class,
        X_ood=x_ood,
        class_names=tuple(str(label) for label in range(recipe.first_target_class, 10)),
        name="digits",
    )


def _stratified_split(
    rows: npt.NDArray[np.intp], label: npt.NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split `rows` in two; the first gets `share` (0..1) of each label's rows. Both are sorted."""
    first, second = [], []
    for value in np.unique(label[rows]):
        shuffled = rng.permutation(rows[label[rows] == value])
        cut = round(share * len(shuffled))
        first.append(shuffled[:cut])
        second.append(shuffled[cut:])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def _photo_patches(n: int, recipe: _Recipe, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Cut `n` patches from the sample photographs: float32, shape (n, 1, 8, 8), range 0..1."""
    from sklearn.datasets import load_sample_images

    photos = [photo.astype(np.float64).mean(axis=2) / 255.0 for photo in load_sample_images().images]
    patches = np.empty((n, 1, 8, 8), dtype=np.float32)
    for index in range(n):
        photo = photos[index % len(photos)]
        scale = int(rng.integers(recipe.smallest_patch_scale, recipe.largest_patch_scale + 1))
        side = 8 * scale
        top = int(rng.integers(photo.shape[0] - side + 1))
        left = int(rng.integers(photo.shape[1] - side + 1))
        crop = photo[top : top + side, left : left + side]
        patches[index, 0] = crop.reshape(8, scale, 8, scale).mean(axis=(1, 3))
    return patches


@contextlib.contextmanager
def _reproducible_torch() -> Iterator[None]:
    """Run torch on one CPU thread with deterministic kernels and autograd; restore all of it after."""
    import torch

    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        # the order of a sum, and so its last bits, depends on the number of threads
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        with torch.device("cpu"), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_num_threads(threads)


class _Backbone:
    """Three 3x3 convolutions, global average pooling, a ReLU feature layer and a linear output.

    The weights are drawn by hand because the initialisers of torch.nn use the global generator.
    """

    def __init__(self, recipe: _Recipe, n_classes: int) -> None:
        import torch

        generator = torch.Generator(device="cpu").manual_seed(recipe.seed)
        c1, c2, c3 = recipe.channels
        shapes: list[tuple[int, ...]] = [(c1, 1, 3, 3), (c2, c1, 3, 3), (c3, c2, 3, 3)]
        shapes += [(recipe.n_features, c3), (n_classes, recipe.n_features)]
        self.parameters: list[torch.Tensor] = []
        for shape in shapes:
            spread = (2.0 / float(np.prod(shape[1:]))) ** 0.5
            weight = spread * torch.randn(shape, generator=generator, dtype=torch.float32)
            bias = torch.zeros(shape[0], dtype=torch.float32)
            self.parameters += [weight.requires_grad_(), bias.requires_grad_()]

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, 1, 8, 8) to features (n, 128), each >= 0."""
        from torch.nn import functional

        w1, b1, w2, b2, w3, b3, w4, b4 = self.parameters[:8]
        x = functional.relu(functional.conv2d(images, w1, b1, padding=1))
        x = functional.relu(functional.conv2d(x, w2, b2, padding=1))
        x = functional.max_pool2d(x, 2)
        x = functional.relu(functional.conv2d(x, w3, b3, padding=1)).mean(dim=(2, 3))
        # all-positive inputs would leave nearly half of the feature units dead
        x = functional.layer_norm(x, x.shape[1:])
        return functional.relu(functional.linear(x, w4, b4))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, 1, 8, 8) to class scores (n, classes)."""
        from torch.nn import functional

        return functional.linear(self.features(images), *self.parameters[8:])

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        import torch

        with torch.no_grad():
            result: npt.NDArray[np.float32] = self.features(torch.from_numpy(images)).numpy()
        return result


def _train(
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    recipe: _Recipe,
    rng: np.random.Generator,
) -> _Backbone:
    import torch
    from torch.nn import functional

    backbone = _Backbone(recipe, n_classes=recipe.first_target_class)
    optimiser: Any = torch.optim.Adam(backbone.parameters, lr=recipe.learning_rate)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    n_batches = max(1, len(labels) // recipe.batch_size)
    for _ in range(recipe.epochs):
        for rows in np.array_split(rng.permutation(len(labels)), n_batches):
            batch = torch.from_numpy(rows)
            optimiser.zero_grad()
            loss = functional.cross_entropy(backbone.logits(x[batch]), y[batch])
            torch.autograd.backward(loss)
            optimiser.step()
    return backbone
