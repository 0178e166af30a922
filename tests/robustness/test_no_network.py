"""No telemetry of libraries: a fresh process that imports and uses them asks nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import sys
sys.path.insert(0, {here!r})
from system_calls import recorded

with recorded() as calls:
    import moevoprune
    from moevoprune.cli.main import main
    for name in {modules!r}:
        try:
            __import__(name)
        except ImportError:
            pass
    assert main(["problems"]) == 0
assert not calls.network, calls.network
print("changed:", sorted(str(path) for path in calls.changed if not str(path).startswith("/dev/")))
"""
# those that moevoprune uses where they are installed
MODULES = (
    *("torch", "torchvision", "pymoo", "sklearn", "scipy", "matplotlib", "PIL", "captum", "pandas", "onnx"),
    *("onnxruntime", "onnxscript", "safetensors", "torch_pruning", "pytorch_ood", "pydantic", "jinja2", "tqdm"),
)


@pytest.mark.slow
def test_importing_everything_asks_nobody_and_writes_nothing_but_caches(tmp_path):
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLCONFIGDIR": str(tmp_path / "mpl"),
        "OMP_NUM_THREADS": "1",
    }
    child = CHILD.format(here=str(Path(__file__).parent), modules=MODULES)
    done = subprocess.run(
        [sys.executable, "-c", child], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    # matplotlib's list of fonts
    assert {path.relative_to(tmp_path).parts[0] for path in written} <= {"mpl", ".cache"}


def test_ray_reports_no_usage(monkeypatch):
    """Ray is told before it starts, unless the user has said otherwise."""
    ray_engine = pytest.importorskip("moevoprune.search.ray_engine")
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    with ray_engine._quiet():
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_onnx_runtime_leaves_no_device_number_and_reports_no_usage(tmp_path):
    """It is native code, of which no audit event tells: what it leaves in the home does."""
    pytest.importorskip("onnxruntime")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    child = "import moevoprune.fronts.export.formats, onnxruntime; onnxruntime.SessionOptions()"
    subprocess.run(
        [sys.executable, "-c", child], env={**environment, "HOME": str(tmp_path)}, check=True, timeout=300
    )
    assert [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name] == []
