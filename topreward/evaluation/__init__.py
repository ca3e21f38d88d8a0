"""Estimators × episodes → curves, their controls, and what they are worth.

In go episodes and whatever scores a clip; out come a row per episode, estimator and control, and summaries that
set every number beside its control. An episode that fails is a row too, and is counted. Knows no terminal.

    evaluate  a job over episodes (`topreward.jobs`) whose records are rows
    rows      a measured episode as numbers
    summary   numbers over episodes, with intervals; success and truth judge against labels
    results   everything as JSON and parquet
    suite     several datasets, beside a paper's figures
"""

from topreward.evaluation.evaluate import EvalRun, evaluate
from topreward.evaluation.summary import Summary, summarise
from topreward.jobs.folder import Folder
from topreward.jobs.plan import CONTROLS, ESTIMATORS, Plan, parse_estimators
from topreward.jobs.scorers import ModelSetup, Scorer

__all__ = [
    "CONTROLS",
    "ESTIMATORS",
    "EvalRun",
    "Folder",
    "ModelSetup",
    "Plan",
    "Scorer",
    "Summary",
    "evaluate",
    "parse_estimators",
    "summarise",
]
