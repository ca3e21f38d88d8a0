"""A run of demo episodes in a process of its own, to be killed: `python killed.py <folder> <engine, as JSON>`."""

from __future__ import annotations

import json
import sys
from typing import Any

from topreward.config import load_protocol
from topreward.estimators.gvl.protocol import load_gvl_protocol
from topreward.evaluation import Folder, ModelSetup, Plan, evaluate
from topreward.jobs.engine import Engine, Shard
from topreward.jobs.inputs import Inputs

PLAN = Plan(("topreward", "log_odds", "debiased"))
INPUTS = Inputs(dataset="demo:?count=12&size=64")


def setup() -> ModelSetup:
    options = {"name": "demo", "device": "cpu"}
    return ModelSetup(PLAN.bases, load_protocol("demo"), load_gvl_protocol("gvl-demo"), options)


def engine_of(options: dict[str, Any]) -> Engine:
    shard = options.pop("shard", None)
    return Engine(**options, shard=Shard(*shard) if shard else None)


if __name__ == "__main__":
    with Folder(sys.argv[1]) as folder:
        run = evaluate(setup(), INPUTS, PLAN, folder, engine=engine_of(json.loads(sys.argv[2])))
    sys.exit(run.failed)
