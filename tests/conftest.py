"""Checkpoints that many tests share, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from checkpoints import make_checkpoint
from hybrids import make_hybrid
from places import ROOT, SUPPORT, TESTS
from topreward.estimators.topreward import TOPReward

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """What a library is going to take away is an error where we call it: here, in the benchmarks and in the package."""
    ours = [file.stem for folder in (TESTS, SUPPORT, ROOT / "benchmarks") for file in folder.glob("*.py")]
    ours += [file.stem for folder in TESTS.iterdir() if folder.is_dir() for file in folder.glob("test_*.py")]
    # transformers wraps what we call in functions of its own, to which it then ascribes what our arguments cause.
    modules = [*(rf"{name}$" for name in sorted(set(ours))), r"topreward(\.|$)", r"transformers\.utils\."]
    for module in modules:
        for category in ("FutureWarning", "DeprecationWarning"):
            config.addinivalue_line("filterwarnings", f"error::{category}:{module}")


@pytest.fixture(scope="session")
def dense_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="session")
def moe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("moe"), "moe")


@pytest.fixture(scope="session")
def hybrid_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hybrid(tmp_path_factory.mktemp("hybrid"))


@pytest.fixture(scope="session")
def hybrid_moe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hybrid(tmp_path_factory.mktemp("hybrid-moe"), "hybrid moe")


@pytest.fixture(scope="session")
def tiny(dense_folder: Path) -> TOPReward:
    """The parity checkpoint: Qwen3-VL with 4 small layers, fp32, on the CPU."""
    return TOPReward.from_pretrained(dense_folder, device="cpu")
