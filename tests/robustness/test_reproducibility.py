"""The same results, byte for byte, whatever a process has around it: threads, hash seed, locale, time zone.

environments.py does the same with all small runs, on several versions of Python.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from environments import SURROUNDINGS, files_that_differ, likeness
from safetensors.numpy import load, save
from small_runs import RUNS, digest

from moevoprune.cli.main import main
from moevoprune.files import ordered_safetensors

SCRIPT = Path(__file__).with_name("small_runs.py")
# of all of them the one that takes most ways: worker processes, noise, out-of-distribution rows
QUICK = ("ood",)


def test_results_do_not_depend_on_what_is_around_a_process(tmp_path):
    processes = []
    for threads, around in SURROUNDINGS.items():
        out = tmp_path / str(threads) / "runs"
        places = {"MOEVOPRUNE_CACHE": str(out / "cache"), "OMP_NUM_THREADS": str(threads), **around}
        words = [sys.executable, str(SCRIPT), "--out", str(out), "--jobs", str(threads), "--only", *QUICK]
        out.parent.mkdir()
        processes.append(subprocess.Popen(words, env={**os.environ, **places}, cwd=out.parent))
    assert [process.wait() for process in processes] == [0, 0]
    one, two = (json.loads((tmp_path / n / "runs" / "summary.json").read_text("utf-8")) for n in ("1", "2"))
    assert files_that_differ(one, two) == []
    assert set(one) == set(QUICK)
    assert len(one["ood"]["fronts"]["front.npz"]) > 1
    assert {"front.csv", "heads.safetensors", "evaluations.journal"} <= set(one["ood"]["files"])


def _disturb(number: int) -> None:
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002
    torch.manual_seed(number)


def _states() -> tuple[bytes, str]:
    # not Python's own, which others move when they are imported (rich, on the way to Ray or torch-pruning)
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state())  # noqa: NPY002


def test_random_numbers_of_others_are_neither_used_nor_moved(small_features, tmp_path):
    npz = tmp_path / "small.npz"
    small_features.save(npz)
    options = ["--pop", "6", "--gens", "3", "--cv", "2", "--set", "epochs=2", "--set", "hidden=[8]", "--jobs", "1"]
    for number in (1, 2):
        _disturb(number)
        before = _states()
        out = tmp_path / str(number)
        assert main(["run", str(npz), "--out", str(out), *options, "--no-baselines", "--quiet"]) == 0
        words = ["construct", "wine", "--quick", "--jobs", "1", "--out", str(out / "wine"), "--quiet"]
        assert main(words) == 0
        assert _states() == before
    names = ["front.csv", "front.npz", "heads.safetensors", "evaluations.journal", "predictions.npz"]
    for name in [*names, "wine/construct.csv", "wine/wine.safetensors"]:
        assert digest(tmp_path / "1" / name) == digest(tmp_path / "2" / name), name


@pytest.mark.parametrize("keys", [0, 1, 2, 9])
def test_safetensors_files_of_the_same_values_are_the_same(keys):
    tensors = {"b": np.arange(5, dtype=np.float32), "a": np.ones((2, 3)), "ä": np.zeros(0, dtype=np.int8)}
    about = {f"key {number} \u00e9\u2028": f'value "{number}" \\ 数' for number in range(keys)}
    contents = {ordered_safetensors(save(tensors, about or None)) for _ in range(30)}
    (content,) = contents
    assert (8 + int.from_bytes(content[:8], "little")) % 8 == 0
    found = load(content)
    assert found.keys() == tensors.keys()
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header.get("__metadata__", {}) == about


def test_the_comparison_sees_what_differs():
    one = {"r": {"files": {"a": "1", "b": "2"}, "fronts": {"front.npz": {"ff": [0.5, 2.0], "0f": [0.25, 1.0]}}}}
    two = {"r": {"files": {"a": "1", "b": "3", "c": "4"}, "fronts": {"front.npz": {"ff": [0.5, 2.5]}}}}
    assert files_that_differ(one, one) == []
    assert files_that_differ(one, two) == ["r/b", "r/c"]
    assert likeness(one, two) == ["r: 2 and 1 members, 1 in both, values 5.0e-01 apart"]
    assert set(QUICK) <= set(RUNS)
