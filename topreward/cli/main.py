"""The doors: the `topreward` command and the scripts, which are the same functions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import tyro

from topreward.cli.eval import DEMO_RUN, EvalOptions, evaluate
from topreward.cli.label import DeriveOptions, ExportOptions, LabelOptions, derive, export, label
from topreward.cli.render import RenderOptions, render
from topreward.cli.report import ReportOptions, report
from topreward.cli.score import ScoreOptions, score
from topreward.cli.suite import SuiteOptions, suite
from topreward.cli.terminal import out, run


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The `topreward` command."""
    commands: dict[str, tuple[Callable[..., Any], Callable[[Any], int]]] = {
        "score": (ScoreOptions, score),
        "eval": (EvalOptions, evaluate),
        "suite": (SuiteOptions, suite),
        "label": (LabelOptions, label),
        "derive": (DeriveOptions, derive),
        "export": (ExportOptions, export),
        "report": (ReportOptions, report),
        "render": (RenderOptions, render),
    }
    known = {name: options for name, (options, _) in commands.items()}
    options = tyro.extras.subcommand_cli_from_dict(known, prog="topreward", args=arguments)
    run(next(command for kind, command in commands.values() if kind is type(options)), options)


def score_main() -> NoReturn:
    """scripts/score_video.py"""
    run(score, tyro.cli(ScoreOptions, description=score.__doc__))


def eval_main() -> NoReturn:
    """scripts/eval_voc.py; without arguments, a run that needs no GPU and no download."""
    arguments = sys.argv[1:]
    if not arguments:
        arguments = DEMO_RUN
        out.print("A demonstration: a tiny model trained on its own drawn world. It is no evidence about the method.")
        out.print(f"(the same as: {' '.join(DEMO_RUN)})", highlight=False, markup=False)
    run(evaluate, tyro.cli(EvalOptions, description=evaluate.__doc__, args=arguments))


def label_main() -> NoReturn:
    """scripts/label_rewards.py"""
    run(label, tyro.cli(LabelOptions, description=label.__doc__))
