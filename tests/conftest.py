"""Checkpoints that many tests share, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from checkpoints import make_checkpoint
from hybrids import make_hybrid
from topreward.estimators.topreward import TOPReward

torch.set_num_threads(1)


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
