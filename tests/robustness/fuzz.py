"""Coverage-guided fuzzing of the readers: ``python tests/robustness/fuzz.py npz --seconds 600``.

Needs atheris, which is no part of the test extra, as it has no wheels for every Python: pip install atheris.
Whatever a reader raises but InputError is a loss. The first input of each kind is kept, the fuzzer goes on, and
the command ends with 1. It also ends so where an input takes more than a minute, or more memory than --memory.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import random
import re
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
# what is looked into for coverage: the package, and what it reads with where that is Python
INSTRUMENTED = ["moevoprune", "zipfile", "json", "tomllib", "tomli"]
_LONGEST = 1 << 16
_SECONDS_FOR_ONE = 60


class _Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def _fuzz(reader_name: str, work: Path, flags: list[str]) -> None:
    """Fuzz in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        sys.path[:0] = [str(HERE), str(HERE.parents[1])]
        from mutations import damaged, npy_with, packed
        from numpy.lib import format as npy_format
        from readers import READERS

    # of NumPy no more than this: to instrument all of it takes minutes
    for function in ("read_magic", "read_array_header_1_0", "read_array_header_2_0", "read_array"):
        atheris.instrument_func(getattr(npy_format, function))
    reader = READERS[reader_name]
    folder, corpus, losses, ran = work / "folder", work / "corpus", work / "losses", work / "ran"
    for made in (corpus, losses):
        made.mkdir(exist_ok=True)
    payload = pickle.dumps(_Payload(ran))
    seeds = reader.seeds(folder)
    pickled = npy_with("|O", "(1,)", payload)
    seeds += [
        payload,
        {"npz": packed([("X_train.npy", pickled)]), "folder": b"\0" + pickled}.get(reader.kind, pickled),
    ]
    for number, seed in enumerate(seeds):
        (corpus / f"seed{number}").write_bytes(seed)
        with suppress(Exception):
            # what is imported late must not count as the time of an input; losses are kept below
            reader.accepts(seed, folder)

    def one_input(data: bytes) -> None:
        try:
            reader.accepts(data, folder)
            assert not ran.exists(), "a pickle was run"
        except Exception as error:
            _keep(losses, error, data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.4:
            return bytes(atheris.Mutate(data, most))
        steps = [
            (rng.randrange(2**16), rng.randrange(2**32), rng.randrange(2**32)) for _ in range(rng.randint(1, 3))
        ]
        return damaged(reader.kind, data, steps)[:most]

    atheris.Setup([sys.argv[0], *flags, str(corpus)], one_input, custom_mutator=mutate)
    atheris.Fuzz()


def _keep(losses: Path, error: Exception, data: bytes) -> None:
    """Keep the first input of each kind of loss: one place in the code that raises one kind of exception."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if f"{os.sep}moevoprune{os.sep}" in frame.filename] or list(frames)
    # what a check of the answers says first tells one failed check from another
    place = f"{type(error).__name__} at {Path(inside[-1].filename).name}:{inside[-1].lineno}"
    name = hashlib.sha256(f"{place} {frames[-1].lineno}".encode()).hexdigest()[:12]
    if not (losses / name).exists():
        (losses / name).write_bytes(data)
        text = f"{place}: {str(error)[:300]!a}\n{traceback.format_exc()}"
        (losses / f"{name}.txt").write_text(text, encoding="utf-8", errors="backslashreplace")


def _summary(log: str) -> str:
    """What libFuzzer's last line says."""
    last = re.findall(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\S+).*$", log, re.MULTILINE)
    if not last:
        return "nothing was executed"
    executions, edges, features, corpus = last[-1]
    kept = corpus.split("/")[0]
    return f"{int(executions):,} executions, {edges} edges, {features} features reached, {kept} inputs kept"


def main() -> int:
    """Fuzz one reader for a while, and sum up."""
    sys.path[:0] = [str(HERE)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "reader", metavar="READER", help="a key of READERS in readers.py, e.g. npz, toml, csv, journal"
    )
    parser.add_argument("--seconds", type=int, default=600, metavar="N", help="how long (default: 600)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the fuzzer (default: 1)")
    parser.add_argument(
        "--memory", type=int, default=3000, metavar="MB", help="most resident memory (default: 3000)"
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="corpus and losses (default: a new temporary folder)"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="fuzz-"))
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if arguments.inside:
        flags = [
            f"-max_total_time={arguments.seconds}", f"-seed={arguments.seed}", f"-rss_limit_mb={arguments.memory}",
            f"-timeout={_SECONDS_FOR_ONE}", f"-max_len={_LONGEST}", "-len_control=0",
            f"-artifact_prefix={work}/stopped-",
        ]  # fmt: skip
        _fuzz(arguments.reader, work, flags)
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("fuzzing needs atheris: pip install atheris (Linux or macOS, CPython 3.11 to 3.13)", file=sys.stderr)
        return 2
    # libFuzzer ends its process itself, and an input may end it too
    log = work / "log.txt"
    with log.open("w", encoding="utf-8") as file:
        command = [sys.executable, __file__, *sys.argv[1:], "--work", str(work), "--inside"]
        code = subprocess.run(command, stdout=file, stderr=file, check=False, cwd=work).returncode
    losses = sorted((work / "losses").glob("*.txt"))
    done = _summary(log.read_text(encoding="utf-8", errors="replace"))
    print(f"{arguments.reader}: {done} in {arguments.seconds} s; ", end="")
    print(f"{len(losses)} kinds of losses" + (f", stopped with {code} (see {log})" if code else ""))
    for loss in losses:
        print(f"  {loss.read_text(encoding='utf-8').splitlines()[0]}\n    {loss.with_suffix('')}")
    return 1 if losses or code else 0


if __name__ == "__main__":
    sys.exit(main())
