"""Draw the README's picture: one table of the demo world, what happens on it, and what the demo model says.

python scripts/draw_demo.py [docs/images/demo.png]
"""

from __future__ import annotations

import sys
from dataclasses import replace

import topreward as tr
from topreward.demo.episodes import demo_episode
from topreward.demo.world import make_rollout
from topreward.report.plots import plot_curves, save_figure

SEED, TASK = 38, "stack_cup"
KINDS = {"success": "it succeeds", "undoes_itself": "it undoes itself", "stops_halfway": "it stops half-way"}


def main(path: str) -> None:
    model = tr.TOPReward.from_pretrained("demo", device="cpu")
    clips: dict[str, tr.Clip] = {}
    for kind, label in KINDS.items():
        episode = demo_episode(make_rollout(SEED, task=TASK, kind=kind))
        clips[label] = episode.clip()
    first = clips["it succeeds"]
    still = first.frames([0])
    clips["frozen: its first frame, repeated"] = replace(
        first, decode=lambda indices: still.repeat(len(indices), axis=0)
    )
    curves = {label: model.score(clip, episode.instruction, protocol="demo") for label, clip in clips.items()}
    save_figure(plot_curves(curves, clips), path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "docs/images/demo.png")
