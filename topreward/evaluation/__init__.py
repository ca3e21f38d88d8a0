"""Estimators × episodes → curves, their controls, and what they are worth.

In go episodes and whatever scores a clip; out come a row per episode, estimator and control, and summaries that
set every number beside its control. An episode that fails is a row too, and is counted. Knows no terminal.

    plan      what is measured: estimators, controls
    frames    an episode's frames, decoded once
    controls  the videos and instructions that tell progress from its look-alikes
    scorers   clips and instructions in, Curves out: the models, behind one interface
    episode   one episode measured: all estimators, all controls
    derive    estimators that are computed from another one's curves
    rows      a measured episode as numbers
    summary   numbers over episodes, with intervals; success and truth judge against labels
    folder    what was measured, on disk: whole files, resumable
    run       the loop over episodes, in one process or several (workers)
    results   everything as JSON and parquet
"""

from topreward.evaluation.folder import Folder
from topreward.evaluation.plan import CONTROLS, ESTIMATORS, Plan, parse_estimators
from topreward.evaluation.run import Run, evaluate
from topreward.evaluation.scorers import ModelSetup, Scorer
from topreward.evaluation.summary import Summary, summarise

__all__ = [
    "CONTROLS",
    "ESTIMATORS",
    "Folder",
    "ModelSetup",
    "Plan",
    "Run",
    "Scorer",
    "Summary",
    "evaluate",
    "parse_estimators",
    "summarise",
]
