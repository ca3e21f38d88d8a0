"""Checkpoints that many tests share, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from checkpoints import make_checkpoint
from places import ROOT, SUPPORT, TESTS
