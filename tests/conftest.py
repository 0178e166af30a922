"""Small data that several tests share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from moevoprune import FeatureSet, HeadSettings

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def small_features() -> FeatureSet:
    """Three classes, 14 features of which 5 carry the class: 96 training and 45 test rows."""
    generator = np.random.default_rng(7)
    centres = np.zeros((3, 14))
    centres[:, :5] = generator.normal(scale=1.5, size=(3, 5))
    labels = np.repeat([0, 1, 2], 47)
    rows = centres[labels] + generator.normal(size=(141, 14))
    order = generator.permutation(141)
    rows, labels = rows[order], labels[order]
    return FeatureSet(rows[:96], labels[:96], rows[96:], labels[96:], class_names=("a", "b", "c"), name="small")


@pytest.fixture(scope="session")
def small_regression() -> FeatureSet:
    """Two targets that depend on 4 of 10 features."""
    generator = np.random.default_rng(8)
    rows = generator.normal(size=(120, 10)).astype(np.float32)
    targets = rows[:, :4] @ generator.normal(size=(4, 2)) * 20 + 100 + generator.normal(size=(120, 2))
    return FeatureSet(rows[:80], targets[:80], rows[80:], targets[80:], task="regression", name="line")


@pytest.fixture(scope="session")
def quick_head() -> HeadSettings:
    """A head that trains in milliseconds."""
    return HeadSettings(hidden=(8,), epochs=4, batch_size=16)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside the checkout")
    return SHARED


@pytest.fixture(scope="module")
def browser():
    """Chromium, for pages; tests that need it are skipped where it is absent."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("MOEVOPRUNE_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium on PATH: install one, or name it in MOEVOPRUNE_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGUMENTS)
        yield launched
        launched.close()
