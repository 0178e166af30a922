"""Everything that reads files of others: what it is given, how it is asked, and what it may answer.

The table :data:`READERS` is shared by the property-based tests and by ``fuzz.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutations import checksummed, npy_with
from PIL import Image
from safetensors.numpy import save
from torch import nn

from moevoprune import FeatureSet, Front, InputError, load_features
from moevoprune.cli.building import configure
from moevoprune.cli.config import parse_config, read_toml, to_toml
from moevoprune.cli.table import front_table, objectives_line
from moevoprune.construction.storing import StoredNetwork
from moevoprune.construction.tables import Table, read_csv, read_frame, split_table
from moevoprune.errors import printable
from moevoprune.features.weights import read_state
from moevoprune.filters.networks import load_weights
from moevoprune.filters.results import FilterFront, NetworkScore, SearchCost, read_scores, write_scores
from moevoprune.filters.saving import NetworkRecord, read_record
from moevoprune.fronts.export.formats import open_exported
from moevoprune.fronts.front import Axis
from moevoprune.fronts.member_maps import MemberMaps, load_member_maps
from moevoprune.fronts.predictions import Predictions
from moevoprune.fronts.report.record import read_run
from moevoprune.fronts.run_folder import FRONT, HEADS, JOURNAL, MEMBER_MAPS, PREDICTIONS, RECORD, SETTINGS
from moevoprune.fronts.tables import csv_rows
from moevoprune.heads.head import TrainedHead
from moevoprune.search.journal import EvaluationJournal

__all__ = ["READERS", "Reader", "is_read"]

LONGEST_MESSAGE = 500
_MOST_USED = 10_000  # features: wider heads are loaded, but not tried

FOLDER_FILES = ("X_train", "y_train", "X_test", "y_test", "task", "class_names", "extraction", "X_ood")


@dataclass(frozen=True)
class Reader:
    """One way into the program.

    Attributes
    ----------
    file
        Name of the file that is attacked.
    kind
        Its structure, a key of ``mutations.STRUCTURES``.
    prepare
        Writes valid files into an empty folder: those that stand beside the one that is attacked, and that one.
    read
        Reads and uses the files of the folder, as the program does. May raise InputError alone.
    more
        Further valid contents of the file.
    """

    file: str
    kind: str
    prepare: Callable[[Path], None]
    read: Callable[[Path], object]
    more: Callable[[Path], list[bytes]] = lambda _: []

    def seeds(self, folder: Path) -> list[bytes]:
        """Prepare a folder, and return valid contents of the attacked file."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.prepare(folder)
        return [(folder / self.file).read_bytes(), *self.more(folder)]

    def accepts(self, content: bytes, folder: Path) -> bool:
        """Give a prepared folder this content; tell whether it is read, or refused in one line.

        Raises
        ------
        Exception
            Whatever the reader must not raise.
        """
        (folder / self.file).write_bytes(content)
        return is_read(lambda: self.read(folder))


def is_read(action: Callable[[], object]) -> bool:
    """Whether an action succeeds; False where it is refused in one short, printable line that may be shown."""
    try:
        action()
    except InputError as error:
        said = str(error)
        assert said, "says nothing"
        assert said == " ".join(said.split()), f"not one line: {said!r}"
        assert len(said) < LONGEST_MESSAGE, f"{len(said)} characters: {said[:200]!r}"
        assert printable(said) == said, f"not printable: {said!r}"
        return False
    return True


# --- features --------------------------------------------------------------------------------------


def _features(task: str = "classification") -> FeatureSet:
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(12, 4)).astype(np.float32)
    if task == "regression":
        return FeatureSet(rows[:8], rows[:8, :2], rows[8:], rows[8:, :2], task="regression")
    labels = np.arange(12) % 3
    extraction = json.dumps({"backbone": {"name": "x"}, "images": 12})
    return FeatureSet(
        rows[:8],
        labels[:8],
        rows[8:],
        labels[8:],
        class_names=("a", "b", "c"),
        X_ood=rows[:2],
        extraction=extraction,
    )


def _more_features(folder: Path) -> list[bytes]:
    plain = {"X_train": np.eye(3), "y_train": np.arange(3), "X_test": np.eye(3), "y_test": np.arange(3)}
    paths = [folder / f"more{number}.npz" for number in range(3)]
    np.savez(paths[0], **plain)
    _features("regression").save(paths[1], "float16")
    np.savez_compressed(paths[2], **plain, class_names=np.array(["x", "y", "z"]), task=np.array("classification"))
    return [path.read_bytes() for path in paths]


def _read_features(folder: Path) -> None:
    features = load_features(folder / "features.npz")
    assert np.isfinite(features.X_train).all()
    assert len(features.content_hash) == 64
    copy = folder / "copy.npz"
    features.save(copy)
    assert FeatureSet.load(copy).content_hash == features.content_hash


def _prepare_folder(folder: Path) -> None:
    _features().save_folder(folder / "features")
    (folder / "attacked").write_bytes(b"\0" + (folder / "features" / "X_train.npy").read_bytes())


def _more_of_folder(folder: Path) -> list[bytes]:
    contents = [(folder / "features" / f"{name}.npy").read_bytes() for name in FOLDER_FILES]
    half = npy_with("<f2", "(8, 4)", bytes(64))
    return [bytes([number]) + content for number, content in enumerate(contents)] + [b"\0" + half]


def _read_folder(folder: Path) -> None:
    content = (folder / "attacked").read_bytes()
    target = folder / "features" / f"{FOLDER_FILES[content[0] % len(FOLDER_FILES) if content else 0]}.npy"
    valid = target.read_bytes()
    try:
        target.write_bytes(content[1:])
        features = load_features(folder / "features")
        assert len(features.content_hash) == 64
        # mapped files are given back before they change
        del features
    finally:
        target.write_bytes(valid)


# --- settings, tables, journals --------------------------------------------------------------------

_PROBLEM = """\
seed = 3
[data]
features = "digits"
task = "classification"
ood = ["out"]
[backbone]
name = "resnet18"
weights = "none"
args = { width = 2 }
[problem]
encoding = "features"
objectives = ["accuracy", "active_neurons"]
max_active = 40
noise = 1e-3
[head]
preset = "paper"
hidden = [32, 16]
learning_rate = 0.01
[search]
algorithm = "guided"
pop = 10
gens = 3
leave_out = ["polish"]
[compute]
device = "cpu"
chunk = 3
"""


def _read_settings(folder: Path) -> None:
    path = folder / SETTINGS
    # looks for the images that are named
    is_read(lambda: configure(read_toml(path), str(path), {}, []))
    config = parse_config(read_toml(path), str(path))
    text = to_toml(config)
    path.write_text(text, encoding="utf-8")
    assert to_toml(parse_config(read_toml(path), str(path))) == text


def _more_settings(folder: Path) -> list[bytes]:
    del folder
    return [
        b'[data]\nfeatures = "digits"\n',
        b'[data]\nimages = "pets"\nroot = "r"\n[head]\nhidden = []\n[search]\nbudget = 5\n',
    ]


_TABLE = "a;b,kind,x\n1,u,0.5\n2,v,1.5\n3,u,2.5\n4,v,3.5\n5,u,1e3\n6,v,-2\n7,u,0\n8,v,1\n"


def _read_table(folder: Path) -> None:
    path = folder / "table.csv"
    names = [str(name) for name in read_frame(path).columns]
    # the first column, and one of texts where there is one
    for name in dict.fromkeys([*names[:1], *(name for name in names if name == "kind")]):
        is_read(lambda name=name: _use_table(read_csv(path, [name])))


def _use_table(table: Table) -> None:
    assert np.isfinite(table.rows).all()
    split_table(table, 1)


def _more_tables(folder: Path) -> list[bytes]:
    del folder
    return [
        b"\xef\xbb\xbfa\tb\n1\t2.5\n2\t3.5\n3\t4.5\n",
        b"kind;y\nyes;1\nno;2\nyes;3\nno;4\n",
        b'"a\nb",c\n"x, y",1\nz,2\n',
    ]


_IDENTITY = {"data": "small (0123456789abcdef)", "seed": 1, "hidden": [8], "noise": 0.5}


def _prepare_journal(folder: Path) -> None:
    generator = np.random.default_rng(2)
    with EvaluationJournal.create(folder / JOURNAL, _IDENTITY, 11, ["accuracy", "active_neurons"]) as journal:
        journal.append(generator.random((4, 11)) < 0.5, generator.random((4, 2)))


def _more_journals(folder: Path) -> list[bytes]:
    header = {"format": "moevoprune-journal", "version": 1, "identity": {}, "n_bits": 1, "objectives": ["a"]}
    lines = [header, {"m": "gA==", "v": [0.5]}, {"m": "AA==", "v": [1]}]
    return [b"".join(checksummed(json.dumps(line).encode()) for line in lines)]


def _read_journal(folder: Path) -> None:
    path = folder / JOURNAL
    # asked first: resuming mends the file
    is_read(lambda: EvaluationJournal.resume(path, {"seed": 2}, 11, ["accuracy", "active_neurons"]).close())
    header, masks, values = EvaluationJournal.read(path)
    assert len(masks) == len(values)
    assert np.isfinite(values).all()
    with EvaluationJournal.resume(path, header["identity"], header["n_bits"], header["objectives"]) as journal:
        assert len(list(journal.iter_entries())) == len(masks)
    assert len(EvaluationJournal.read(path)[1]) == len(masks)


# --- fronts ----------------------------------------------------------------------------------------


def _head(inputs: list[int], generator: np.random.Generator) -> TrainedHead:
    def floats(*shape: int) -> Any:
        return generator.normal(size=shape).astype(np.float32)

    n = len(inputs)
    return TrainedHead(
        "classification",
        6,
        np.array(inputs),
        (floats(n, 5), floats(5, 3)),
        (floats(5), floats(3)),
        floats(n),
        floats(n) ** 2 + 1,
    )


def _front() -> Front:
    generator = np.random.default_rng(3)
    kept = [[1], [1, 4], [0, 1, 4, 5]]
    masks = np.array([[bit in bits for bit in range(6)] for bits in kept])
    values = np.array([[0.5, 1 / 6], [0.7, 2 / 6], [0.9, 4 / 6]])
    predictions = Predictions(
        "classification",
        np.arange(5),
        np.arange(5) % 3,
        generator.normal(size=(4, 5, 3)).astype(np.float32),
        np.arange(4) % 3,
        generator.integers(-1, 3, size=(4, 4)),
    )
    return Front(
        axes=(Axis("accuracy", True), Axis("active_neurons", False)),
        encoding="features",
        masks=masks,
        active=masks.sum(axis=1),
        values=values,
        F=values * [-1, 1],
        ideal=np.array([-1.0, 0.0]),
        corner=np.array([0.0, 1.0]),
        heads=tuple(_head(bits, generator) for bits in kept),
        test_metric="accuracy",
        test=np.array([0.4, 0.6, 0.8]),
        dense_values=np.array([0.9, 1.0]),
        dense_test=0.85,
        dense_head=_head(list(range(6)), generator),
        history={"evaluations": np.array([4.0, 8.0]), "hypervolume": np.array([0.1, 0.2])},
        class_names=("a", "b", "c"),
        test_columns={"ood_auroc": np.array([0.5, 0.6, 0.7])},
        dense_test_columns={"ood_auroc": 0.7},
        predictions=predictions,
    )


def _read_front(folder: Path) -> None:
    front = Front.load(folder)
    assert len(csv_rows(front.to_csv())) == len(front) + 2
    front_table(front)
    if len(front):
        objectives_line(front)
    for head in (*front.heads, front.dense_head):
        if head.n_features <= _MOST_USED:
            with np.errstate(all="ignore"):
                assert head.outputs(np.zeros((1, head.n_features), np.float32)).shape == (1, head.widths[-1])
    if front.predictions is not None and front.predictions.task == "classification":
        front.predictions.confusion(-1, "validation", front.predictions.validation_outputs.shape[2])
        front.predictions.confusion(0, "test", front.predictions.validation_outputs.shape[2])
    # what is read can be written and read again
    front.save(folder / "copy")
    np.testing.assert_array_equal(Front.load(folder / "copy").F, front.F)


def _more_heads(folder: Path) -> list[bytes]:
    regression = replace(
        _front().dense_head,
        task="regression",
        target_mean=np.zeros(3, np.float32),
        target_scale=np.ones(3, np.float32),
    )
    arrays = {
        f"{name}.{key}": array
        for name in ("0", "1", "2", "dense")
        for key, array in regression.to_arrays().items()
    }
    return [save(arrays)]


def _more_predictions(folder: Path) -> list[bytes]:
    front = _front()
    generator = np.random.default_rng(4)
    regression = Predictions(
        "regression",
        np.arange(5),
        generator.normal(size=(5, 3)),
        generator.normal(size=(4, 5, 3)).astype(np.float32),
        generator.normal(size=(4, 3)),
        generator.normal(size=(4, 4, 3)),
    )
    regression.save(folder / "more.npz", front.fingerprint)
    return [(folder / "more.npz").read_bytes()]


def _thumbnail() -> bytes:
    import io

    file = io.BytesIO()
    Image.new("RGB", (9, 7), (90, 20, 5)).save(file, "JPEG")
    return file.getvalue()


def _prepare_maps(folder: Path) -> None:
    generator = np.random.default_rng(5)
    MemberMaps(
        keys=("one.png", "two.png"),
        labels=np.array([0, -1]),
        thumbnails=(_thumbnail(), _thumbnail()),
        heat=generator.integers(0, 256, (4, 2, 3, 3), dtype=np.uint8),
        predicted=generator.integers(-1, 3, (4, 2)),
        confidence=generator.random((4, 2)).astype(np.float16),
    ).save(folder)


def _read_maps(folder: Path) -> None:
    maps = load_member_maps(folder)
    assert maps is not None
    assert maps.heat.shape[:2] == (maps.n_members + 1, len(maps))
    assert all(isinstance(thumbnail, bytes) for thumbnail in maps.thumbnails)


_RECORD = {
    "moevoprune": "0.1.0", "seed": 1, "seconds": 2.5, "interrupted": False, "merged_from": ["a", "b"],
    "data": {"name": "small", "sha256": "0" * 64, "n_train": 8}, "versions": {"numpy": "2"},
}  # fmt: skip


def _prepare_record(folder: Path) -> None:
    (folder / RECORD).write_text(json.dumps(_RECORD), encoding="utf-8")
    (folder / SETTINGS).write_text(_PROBLEM, encoding="utf-8")
    (folder / "out").mkdir()


def _read_run_record(folder: Path) -> None:
    run = read_run(folder)
    assert isinstance(run.record, Mapping)
    assert all(printable(name) == name for name in run.merged_from)
    from moevoprune.fronts.run_folder import entry, number_at, read_record

    record = read_record(folder)
    entry(record, "data", "sha256")
    number = number_at(record, "seconds")
    assert number is None or abs(float(number)) <= 1e300 or number != number


# --- weights and networks --------------------------------------------------------------------------


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def _weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        key: torch.rand(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        for key, tensor in _network().state_dict().items()
    }


def _prepare_weights(folder: Path) -> None:
    (folder / "w.safetensors").write_bytes(save({key: tensor.numpy() for key, tensor in _weights().items()}))
    torch.save(_weights(), folder / "w.pth")


def _more_pickled(folder: Path) -> list[bytes]:
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in _weights().items()}, "epoch": 3},
        folder / "more.pth",
    )
    torch.save(_weights(), folder / "old.pth", _use_new_zipfile_serialization=False)
    return [(folder / name).read_bytes() for name in ("more.pth", "old.pth")]


def _read_weights(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        assert all(isinstance(value, torch.Tensor) for value in read_state(folder / name).values())
        network = _network()
        load_weights(network, folder / name)
        with torch.no_grad():
            assert network.eval()(torch.zeros(1, 3)).shape == (1, 2)

    return read


def _prepare_network_record(folder: Path) -> None:
    record = NetworkRecord(
        architecture="vgg", role="knee", n_classes=3, in_channels=1, image_size=(8, 8), keep=("a",), n_filters=11,
        packed="ffe0", mean=(0.5,), std=(0.2,), class_names=("a", "b", "c"),
    )  # fmt: skip
    about = {"format": "moevoprune-filters-1", "about": json.dumps(record.model_dump())}
    (folder / "n.safetensors").write_bytes(save({"w": np.zeros(2, np.float32)}, about))


def _read_network_record(folder: Path) -> None:
    record = read_record(folder / "n.safetensors")
    assert record.mask.shape == (record.n_filters,)
    assert len(record.normalisation.mean) == record.in_channels


def _constructed(classes: tuple[str, ...], folder: Path, columns: bool) -> bytes:
    from moevoprune.construction.encoding import Column, TableEncoding

    encoding = TableEncoding((Column("a"), Column("kind", ("u", "v")), Column("x"), Column("y"), Column("z")))
    head = _front().dense_head
    StoredNetwork(head, classes, ("t",), encoding if columns else None).save(folder / "c.safetensors")
    return (folder / "c.safetensors").read_bytes()


def _prepare_constructed(folder: Path) -> None:
    _constructed(("a", "b", "c"), folder, True)


def _read_constructed(folder: Path) -> None:
    network = StoredNetwork.load(folder / "c.safetensors")
    if network.network.n_features <= _MOST_USED:
        with np.errstate(all="ignore"):
            network.predict(np.zeros((1, network.network.n_features), np.float32))


def _prepare_exported(folder: Path) -> None:
    from moevoprune.fronts.export.formats import encode
    from moevoprune.fronts.export.modules import HeadModule

    head = _front().heads[1]
    content = encode(
        ".safetensors", HeadModule(head), torch.zeros(2, 6), ("features", "logits"),
        {"task": "classification", "n_features": "6"},
    )  # fmt: skip
    (folder / "e.safetensors").write_bytes(content)


def _more_exported(folder: Path) -> list[bytes]:
    from moevoprune.fronts.export.formats import encode
    from moevoprune.heads.ensemble import HeadEnsemble

    ensemble = HeadEnsemble(_front().heads, voting="hard")
    about = {"task": "classification", "n_features": "6"}
    return [encode(".safetensors", ensemble, torch.zeros(2, 6), ("features", "votes"), about)]


def _read_exported(folder: Path) -> None:
    with np.errstate(all="ignore"):
        open_exported(folder / "e.safetensors")(np.zeros((1, 6), np.float32))


# --- results of filter pruning ---------------------------------------------------------------------


def _prepare_filter_front(folder: Path) -> None:
    values = np.array([[0.4, 0.2], [0.1, 0.6]])
    costs = np.array([[10.0, 5.0], [30.0, 15.0]])
    masks = np.array([[True, False, False], [True, True, False]])
    FilterFront(("error", "flops"), masks, values, values, costs, np.array([50.0, 25.0, 0.05]), 1).save(
        folder / "f.npz"
    )


def _read_filter_front(folder: Path) -> None:
    front = FilterFront.load(folder / "f.npz", ("error", "flops"), 1)
    front.to_csv()
    assert np.isfinite(front.hypervolume)


def _prepare_scores(folder: Path) -> None:
    roles = ("original", "original, tuned", "heavy", "knee", "light")
    write_scores(folder / "s.json", [NetworkScore(role, 10, 5, 100, 0.1, 0.2, 0.3, 0.4, 0.5) for role in roles])


def _prepare_cost(folder: Path) -> None:
    SearchCost(40, 2.5).save(folder / "cost.json")


READERS: dict[str, Reader] = {
    "npz": Reader(
        "features.npz", "npz", lambda at: _features().save(at / "features.npz"), _read_features, _more_features
    ),
    "feature_folder": Reader("attacked", "folder", _prepare_folder, _read_folder, _more_of_folder),
    "toml": Reader(SETTINGS, "toml", _prepare_record, _read_settings, _more_settings),
    "csv": Reader(
        "table.csv",
        "csv",
        lambda at: (at / "table.csv").write_text(_TABLE, encoding="utf-8"),
        _read_table,
        _more_tables,
    ),
    "journal": Reader(JOURNAL, "journal", _prepare_journal, _read_journal, _more_journals),
    "front": Reader(FRONT, "npz", lambda at: _front().save(at), _read_front),
    "heads": Reader(HEADS, "safetensors", lambda at: _front().save(at), _read_front, _more_heads),
    "predictions": Reader(PREDICTIONS, "npz", lambda at: _front().save(at), _read_front, _more_predictions),
    "member_maps": Reader(MEMBER_MAPS, "npz", _prepare_maps, _read_maps),
    "record": Reader(RECORD, "json", _prepare_record, _read_run_record),
    "weights": Reader("w.safetensors", "safetensors", _prepare_weights, _read_weights("w.safetensors")),
    "pickled_weights": Reader("w.pth", "npz", _prepare_weights, _read_weights("w.pth"), _more_pickled),
    "network": Reader("n.safetensors", "safetensors", _prepare_network_record, _read_network_record),
    "constructed": Reader(
        "c.safetensors",
        "safetensors",
        _prepare_constructed,
        _read_constructed,
        lambda at: [_constructed(("a", "b", "c"), at, False)],
    ),
    "exported": Reader("e.safetensors", "safetensors", _prepare_exported, _read_exported, _more_exported),
    "filter_front": Reader("f.npz", "npz", _prepare_filter_front, _read_filter_front),
    "filter_scores": Reader("s.json", "json", _prepare_scores, lambda at: read_scores(at / "s.json")),
    "filter_cost": Reader("cost.json", "json", _prepare_cost, lambda at: SearchCost.load(at / "cost.json")),
}
