"""Weights of a network: torchvision's own, or a state dict from a file, read without running anything in it."""

from __future__ import annotations

import hashlib
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.errors import InputError, nearest, words_of
from moevoprune.features.free_memory import check_whole_file
from moevoprune.features.vision import import_torchvision, own_randomness, reason_of

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

    from moevoprune.features.backbone_settings import BackboneSettings

__all__ = [
    "download_state",
    "load_state",
    "original_weights",
    "read_state",
    "renamed",
    "resolve_weights",
    "targets_of",
    "weights_hash",
]

# what training tools put around a state dict, and before its names
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")
# names of DenseNet tensors in torchvision's own old files: "norm.1" is "norm1" now
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.\w+)$")
_COUNTER = "num_batches_tracked"


def original_weights(name: str) -> Any:
    """Return torchvision's first weights of a model, or None where there are none."""
    return next(iter(_members(name)), None)


def _members(name: str) -> tuple[Any, ...]:
    try:
        return tuple(import_torchvision().models.get_model_weights(name))
    except ValueError:
        return ()


def resolve_weights(settings: BackboneSettings) -> Any:
    """Return None (random), the path of a file, or a member of the model's weights.

    Raises
    ------
    InputError
        The setting is none of these.
    """
    wanted = settings.weights
    if wanted == "none":
        return None
    members = {member.name: member for member in _members(settings.name)}
    if wanted == "default":
        if not members:
            raise InputError(
                f"torchvision has no weights of {settings.name}: give a file with a state dict, or none"
            )
        return type(next(iter(members.values()))).DEFAULT
    if wanted in members:
        return members[wanted]
    there = False
    # a word may be no possible path, or name the home of nobody
    with suppress(OSError, ValueError, RuntimeError):
        path = Path(wanted).expanduser()
        if path.is_file():
            return path
        there = path.exists()
    words = ["default", "none", *members]
    problem = "is not a file" if there else "does not exist as a file"
    raise InputError(
        f"weights {wanted!r} of {settings.name}: {problem}, and is none of the words {', '.join(words)}"
        f"{nearest(wanted, words)}"
    )


def download_state(weights: Any, settings: BackboneSettings) -> Mapping[str, Any]:
    """Read torchvision's own weights, from its cache if they are there."""
    import torch

    try:
        state: Mapping[str, Any] = weights.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, map_location="cpu", weights_only=True
        )
    except Exception as error:  # network, disk, a wrong hash, a damaged file in the cache
        cached = Path(torch.hub.get_dir(), "checkpoints", str(weights.url).rpartition("/")[2])
        advice = f"delete {cached}, " if cached.exists() else ""
        raise InputError(
            f"the weights of {settings.name} cannot be downloaded ({reason_of(error)}):"
            f" {advice}give --weights FILE with a state dict, or --weights none"
        ) from None
    return state


def read_state(path: Path) -> Mapping[str, Any]:
    """Read a state dict from a file without running anything that it holds."""
    import torch

    try:
        check_whole_file(path)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # untrusted bytes: a dozen kinds
        reason = words_of(error) if isinstance(error, OSError) else reason_of(error)
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            reason = "it holds more than tensors"
        elif not isinstance(error, OSError | MemoryError):
            # what the reader stumbled over says nothing to a user
            reason = "it is another kind of file, or damaged"
        raise InputError(
            f"{path}: no state dict can be read ({reason}): save it with torch.save(model.state_dict(), FILE)"
        ) from None
    return _unwrapped(content, path)


def _unwrapped(content: Any, path: Path) -> Mapping[str, Any]:
    for _ in range(len(_WRAPPERS)):
        inner = next((content[key] for key in _WRAPPERS if isinstance(_get(content, key), Mapping)), None)
        if inner is None:
            break
        content = inner
    import torch

    tensors = {}
    if isinstance(content, Mapping):
        tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not tensors:
        raise InputError(
            f"{path}: holds no tensors by name, so it is no state dict:"
            " save it with torch.save(model.state_dict(), FILE)"
        )
    most = path.stat().st_size
    for name, tensor in tensors.items():
        # a view of few numbers may claim any shape, and fills the memory as soon as it is used
        if not tensor.is_meta and tensor.numel() * tensor.element_size() > most:
            raise InputError(f"{path}: {name!r} is larger than the file: save ordinary weights")
    return _Named(tensors, getattr(content, "_metadata", None))


class _Named(dict[str, Any]):
    """Tensors by name, with the versions of the modules that torch keeps beside them."""

    def __init__(self, tensors: Mapping[str, Any], metadata: Any) -> None:
        super().__init__(tensors)
        self._metadata = dict(metadata) if isinstance(metadata, Mapping) else {}


def _get(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, Mapping) else None


def targets_of(graphs: Iterable[fx.Graph]) -> set[str]:
    """Targets of the graphs: names of modules and of single tensors."""
    return {str(node.target) for graph in graphs for node in graph.nodes if node.op in ("call_module", "get_attr")}


def load_state(
    model: nn.Module,
    state: Mapping[str, Any],
    targets: set[str],
    where: str,
    name: str,
    advice: str = "is the backbone or a --backbone-arg another one?",
) -> None:
    """Give the network on the meta device its weights; the used part must be complete.

    Parameters
    ----------
    model
        The network; afterwards its tensors are those of `state`.
    state
        Tensors by name.
    targets
        Names of the modules and tensors that are used.
    where
        What to call the weights in a message.
    name
        Name of the network.
    advice
        What a user should look at where the weights do not fit.
    """
    import torch

    own = model.state_dict()
    tensors, versions = renamed(state, own)
    wrong = {k: v for k, v in tensors.items() if k in own and v.shape != own[k].shape}
    fitting = _Named(
        {k: _plain(v, own.get(k), k, where) for k, v in tensors.items() if k not in wrong},
        # the version of the network itself is what MNASNet insists on
        {"": getattr(own, "_metadata", {}).get("", {}), **versions},
    )
    with own_randomness(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # the networks' own hooks rename what older files call otherwise
            missing = set(model.load_state_dict(fitting, strict=False, assign=True).missing_keys)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{where} does not fit {name} ({reason_of(error)})") from None

    loaded = model.state_dict()
    # whole numbers are counters of batches and tables of positions, which are there from the building
    needed = [
        key
        for key in loaded
        if loaded[key].is_floating_point() and any(key == t or key.startswith(f"{t}.") for t in targets)
    ]
    absent = [key for key in needed if key in missing]
    if absent:
        first = next((key for key in absent if key in wrong), None)
        if first is not None:
            raise InputError(
                f"{where} does not fit {name}: {first!r} has the shape {tuple(wrong[first].shape)},"
                f" not {tuple(own[first].shape)}; {advice}"
            )
        if len(absent) == len(needed):
            raise InputError(
                f"{where} holds none of the tensors of {name}: its first is {next(iter(tensors))!r},"
                f" that of the network {needed[0]!r}; {advice}"
            )
        raise InputError(f"{where} does not fit {name}: it has no {absent[0]!r}; {advice}")
    for key in needed:
        if not bool(torch.isfinite(loaded[key]).all()):
            raise InputError(f"{where}: {key!r} holds numbers that are not finite: take other weights of {name}")


def renamed(state: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Remove prefixes that training tools add, and spell names as torchvision does today.

    Parameters
    ----------
    state
        Tensors by name, as :func:`read_state` gives them.
    own
        The network's own state dict.

    Returns
    -------
    tensors, versions
        Tensors by their present names, and the versions of the modules that torch keeps beside them.
    """
    tensors = dict(state)
    versions = dict(getattr(state, "_metadata", None) or {})
    for _ in range(3):
        prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in tensors)), None)
        if prefix is None or any(key in own for key in tensors):
            break
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
        bare = prefix.removesuffix(".")
        versions = {
            "" if key == bare else key.removeprefix(prefix): value
            for key, value in versions.items()
            if key == bare or key.startswith(prefix)
        }
    return {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in tensors.items()}, versions


def _plain(tensor: Tensor, like: Tensor | None, key: str, where: str) -> Tensor:
    """Make an ordinary tensor of the network's number format."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        raise InputError(
            f"{where}: {key!r} is sparse, quantised, complex or without values: save ordinary weights"
        )
    if like is not None:
        return tensor.detach().to(like.dtype).contiguous()
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


def weights_hash(parts: Iterable[nn.Module], own: set[str]) -> str:
    """SHA-256 in hexadecimal over names, shapes and values of the network's tensors that are used.

    Counters of batches do not matter, and the names of constants that tracing made are not to be relied on.
    """
    tensors = {
        key: value
        for part in parts
        for key, value in part.state_dict().items()
        if key in own and not key.endswith(_COUNTER)
    }
    digest = hashlib.sha256()
    for key in sorted(tensors):
        array = tensors[key].numpy()
        # the byte order is fixed so that the hash is the same on every machine
        array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        digest.update(f"{key} {array.dtype.str} {array.shape}\0".encode())
        digest.update(array.data)
    return digest.hexdigest()
