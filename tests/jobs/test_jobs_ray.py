"""Ray Data's actors measure what this process would, also where a node is lost on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from killed import INPUTS, PLAN, setup
from places import SUPPORT
from runs import measured, same
from topreward.evaluation import Folder, evaluate
from topreward.jobs.engine import Engine

pytest.importorskip("ray")

ON_RAY = """
import sys
from functools import partial
from ray.cluster_utils import Cluster
from killed import INPUTS, PLAN, setup
from scorers import Bright, Load, episodes, missing
from topreward.evaluation import Folder, Plan, evaluate
from topreward.jobs.engine import Engine
import ray, logging, os

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
try:
    seen = []
    def lose(record):
        seen.append(record)
        if len(seen) == 2 and len(nodes) == 2:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
    with Folder(sys.argv[1]) as folder:
        engine = Engine(workers=2, decoders=0, batch_size=2, kind="ray")
        run = evaluate(setup(), INPUTS, PLAN, folder, engine=engine, on_done=lose)
    assert len(nodes) == 1
    assert run.failed == 0, [e.error for e in run.episodes if e.error]
    with Folder() as folder:  # an error is a row
        listed = partial(episodes, 6, {1: missing})
        run = evaluate(Load({"topreward": Bright()}), listed, Plan(("topreward",)), folder, engine=engine)
    assert [e.error for e in run.episodes] == [None, "gone.mp4: no such file", *[None] * 4]
    print("done")
finally:
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.timeout(900)
def test_a_cluster_that_loses_a_node_measures_the_same(tmp_path: Path) -> None:
    script = tmp_path / "on_ray.py"
    script.write_text(ON_RAY)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    ran = subprocess.run(
        [sys.executable, script, tmp_path / "r"], env=environment, capture_output=True, text=True, timeout=800
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "done" in ran.stdout.splitlines()  # beside what a raylet says that is lost
    with Folder() as alone:
        expected = measured(alone, evaluate(setup(), INPUTS, PLAN, alone))
    with Folder(tmp_path / "r") as kept:
        run = evaluate(setup(), INPUTS, PLAN, kept, engine=Engine())
        assert (run.resumed, run.failed) == (12, 0)
        same(expected, measured(kept, run))
