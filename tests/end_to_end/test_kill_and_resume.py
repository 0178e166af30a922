"""A run that is killed and resumed ends with the front of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

OPTIONS = ["--pop", "8", "--gens", "6", "--cv", "3", "--set", "epochs=8", "--seed", "4"]


def command(npz, out, *more):
    return [sys.executable, "-m", "moevoprune", "run", str(npz), "--out", str(out), *OPTIONS, *more]


def test_sigkill_in_several_generations_then_resume(small_features, tmp_path):
    npz = tmp_path / "small.npz"
    small_features.save(npz)
    subprocess.run(command(npz, tmp_path / "whole", "--quiet"), check=True)
    whole = (tmp_path / "whole" / "front.csv").read_bytes()

    out = tmp_path / "killed"
    journal = out / "evaluations.journal"
    sizes = []
    for _ in range(3):
        before = journal.stat().st_size if journal.exists() else 0
        process = subprocess.Popen(command(npz, out, "--resume", "--quiet"))
        while process.poll() is None:
            # killed as soon as it has written anything new
            if journal.exists() and journal.stat().st_size > before and before + 400 < journal.stat().st_size:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        process.wait()
        sizes.append(journal.stat().st_size)
    assert sizes == sorted(sizes)
    subprocess.run(command(npz, out, "--resume", "--quiet"), check=True)
    assert (out / "front.csv").read_bytes() == whole
    assert journal.read_bytes() == (tmp_path / "whole" / "evaluations.journal").read_bytes()


def test_two_runs_with_one_seed_are_byte_identical_whatever_the_threads(small_features, tmp_path):
    npz = tmp_path / "small.npz"
    small_features.save(npz)
    for number, threads in enumerate(("1", "2")):
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        subprocess.run(command(npz, tmp_path / str(number), "--quiet"), check=True, env=environment)
    for name in ("front.csv", "front.npz", "heads.safetensors", "evaluations.journal"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes(), name
