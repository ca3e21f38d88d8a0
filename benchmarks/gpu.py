"""The real architectures on a GPU, with random weights made on it: how near to the floor, and how exact.

    python3 benchmarks/gpu.py --arch qwen3-vl-8b --json benchmarks/results/gpu.json
    python3 benchmarks/gpu.py --device cpu --arch small --quick      the whole script in a few minutes, without a GPU

Nothing is downloaded. For every workload it prints the arithmetic floor first (operations of vision, trunk and
branches over the rate of a large matrix product, measured in the same run), then times, in turn: `floor`, `ours`,
`append`, `alone`, `recompute` (benchmarks/ways.py) from prepared patches on the device, and `score`: the public call,
from frames in the host's memory to Curves. Then: how far from the slow twin, packed short clips, from video files to
parquet, quantized weights. Ratios are of medians; one run holds all that a ratio needs. A workload that fails is
written down as failed, the others go on, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs where topreward is not installed

# All else is imported after it is known to be there; processes that decode import this file, and need nothing of it.
from needs import QUANTIZATIONS, WORKLOADS, missing

if TYPE_CHECKING:
    from measuring import Run
    from record import Record
    from topreward.qwen.model import QwenVL


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="qwen3-vl-8b", help="a name in architectures.py")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="default: bfloat16 on a GPU, else float32")
    parser.add_argument(
        "--branch-kernel", choices=["dense", "folded", "grouped"], help="default: what suits the device"
    )
    parser.add_argument("--sdpa", choices=["auto", "cudnn", "flash", "no-cudnn"], default="auto",
                        help="which attention kernel torch tries first, in every way alike; cuDNN's plans anew for "
                        "every shape")  # fmt: skip
    parser.add_argument("--linear-patch-embed", nargs="?", choices=["never", "auto", "always"], default="never",
                        const="always", help="the patch embedding as a matrix product, in every way alike; "
                        "auto: where the convolution takes over 10 times as long")  # fmt: skip

    what = parser.add_argument_group("what is measured")
    what.add_argument("--workload", choices=WORKLOADS, action="append", help="only this one (may repeat)")
    what.add_argument("--skip", choices=WORKLOADS, action="append", default=[], help="not this one (may repeat)")
    what.add_argument("--quantization", choices=QUANTIZATIONS, action="append", default=[], help="this too, at the end")
    what.add_argument("--repeats", type=int, default=10, help="timed runs of each way (median)")
    what.add_argument("--min-repeats", type=int, default=3, help="as many at least, whatever they take")
    what.add_argument("--budget", type=float, default=20.0, help="seconds for repeats, per workload")
    what.add_argument("--quick", action="store_true", help="small clips, few repeats: shows that all works")

    label = parser.add_argument_group("the label workload")
    label.add_argument("--label-episodes", type=int, help="default 48, quick 4")
    label.add_argument("--label-workers", type=int, default=max(1, (os.cpu_count() or 1) - 1), help="that decode")
    label.add_argument("--label-processes", action="store_true", help="decode in processes, not in threads")

    kept = parser.add_argument_group("what is kept")
    kept.add_argument("--json", type=Path, help="write all figures here; what is there of other workloads stays")
    kept.add_argument("--merge", type=Path, action="append", default=[], help="figures of earlier runs to start from")
    kept.add_argument("--commit", help="the code's commit, where there is no git to ask")
    chosen = parser.parse_args(arguments)
    for name, least in (("repeats", 1), ("min_repeats", 1), ("label_workers", 1)):
        if getattr(chosen, name) < least:
            parser.error(f"--{name.replace('_', '-')} is {getattr(chosen, name)}, want at least {least}")
    if absent := [str(file) for file in chosen.merge if not file.is_file()]:
        parser.error(f"--merge {', '.join(absent)}: no such file")
    return chosen


def main(arguments: list[str] | None = None) -> int:
    chosen = options(arguments)
    names = [name for name in chosen.workload or WORKLOADS if name not in chosen.skip]
    if absent := missing(names, chosen.quantization):
        sys.exit(f"cannot be imported: {'; '.join(absent)}")

    import torch

    from architectures import ARCHITECTURES
    from device import preferred, use

    if chosen.arch not in ARCHITECTURES:
        sys.exit(f"--arch {chosen.arch}: there are {', '.join(ARCHITECTURES)}")
    if chosen.device != "cpu" and not torch.cuda.is_available():
        sys.exit(f"--device {chosen.device}: torch {torch.__version__} sees no GPU; --device cpu --arch small --quick")
    use(chosen.device)
    with torch.inference_mode(), preferred(chosen.sdpa):
        return _run(chosen, names, sys.argv[1:] if arguments is None else arguments)


def _run(chosen: argparse.Namespace, names: list[str], arguments: list[str]) -> int:
    import torch

    import measuring
    import patch_embed
    from architectures import make
    from flops import matrix_rate

    dtype = getattr(torch, chosen.dtype or ("float32" if chosen.device == "cpu" else "bfloat16"))
    record = _record(chosen, str(dtype).removeprefix("torch."))
    build = partial(make, chosen.arch, device=chosen.device, dtype=dtype, kernel=chosen.branch_kernel)
    model = build()
    rate, patches = matrix_rate(chosen.device, dtype), patch_embed.measure(model)
    patches["used"] = patch_embed.as_chosen(model, chosen.linear_patch_embed, patches)
    made = _made(chosen, arguments, model, rate, patches)
    _say(made)
    run = _what_all_share(chosen, rate, patches)
    measuring.warm_up(model, run)

    clips = {name: partial(measuring.measure, model, name, run) for name in names}
    failed = _each(clips, record, made)
    del model, clips  # a quantized one takes its place
    failed += _each({kind: partial(_quantized, build, kind, run) for kind in chosen.quantization}, record, made)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _each(steps: Mapping[str, Callable[[Any], dict[str, Any]]], record: Record, made: dict[str, Any]) -> list[str]:
    """Measure one after the other and keep what each gives. Returns the names of those that failed."""
    from device import clocks, let_go

    failed = []
    for name, step in steps.items():
        try:
            entry = step(partial(_keep, record, name, made, finished=False))
            _keep(record, name, made, entry)
            failed += [f"{way} of {name}" for way in entry.get("failed", ())]
        except Exception:
            failed.append(name)
            error = traceback.format_exc()
            print(f"\n{name} failed:\n{error}", file=sys.stderr, flush=True)
            record.fail(name, error, made | {"gpu_after": clocks()})
        let_go()
    return failed


def _keep(record: Record, name: str, made: dict[str, Any], entry: dict[str, Any], *, finished: bool = True) -> None:
    from device import clocks

    spent = time.time() - datetime.fromisoformat(made["started"]).timestamp()
    whole = {"workload": name, **entry, "made": {**made, "gpu_after": clocks(), "seconds_since_start": spent}}
    record.keep(name, whole, finished=finished)
    if finished and "flops" not in entry:  # those have shown theirs as a table
        print(f"\n{name}: {json.dumps({k: v for k, v in entry.items() if k != 'seconds'}, indent=1)}", flush=True)


def _quantized(build: Callable[[], QwenVL], kind: str, run: Run, keep: Any) -> dict[str, Any]:
    import quantization
    from jobs import JOBS, TASKS

    model = build()
    run.patch_embed(model)
    job = run.job(JOBS["paper"])
    clips = [job.clip(seed) for seed in range(2 if run.quick else 8)]
    return quantization.measure(model, kind, clips, TASKS[0], job.protocol, run.device, **run.often)


def _record(chosen: argparse.Namespace, dtype: str) -> Record:
    import torch

    from record import Record

    device = "cpu" if chosen.device == "cpu" else torch.cuda.get_device_name()
    of = {"architecture": chosen.arch, "dtype": dtype, "device": device, "quick": chosen.quick}
    try:
        return Record(of, chosen.json, merge=chosen.merge)
    except (ValueError, KeyError) as error:
        sys.exit(f"cannot be merged: {error}")


def _made(
    chosen: argparse.Namespace, arguments: list[str], model: QwenVL, rate: float, patches: dict[str, Any]
) -> dict[str, Any]:
    """How the figures of this run are made, kept with each."""
    from common import machine
    from device import gpu

    told = machine()
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": [Path(a).name if a.startswith("/") else a for a in arguments],  # no folder of this machine
        "machine": told | {"commit": chosen.commit or told["commit"]},
        "gpu": gpu(),
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "matrix_rate": rate,
        "patch_embed": patches,
        "kernels": model.kernels | {"sdpa": chosen.sdpa},
    }


def _say(made: dict[str, Any]) -> None:
    patches, machine = made["patch_embed"], made["machine"]
    print(f"random weights, {made['parameters'] / 1e9:.2f} G parameters; {made['gpu'] or 'on the CPU'}; {machine}")
    print(f"a large matrix product runs at {made['matrix_rate'] / 1e12:.4g} TFLOP/s")
    print(
        f"patch embedding of {patches['patches']} patches: {patches['convolution'] * 1e3:.3g} ms as a convolution, "
        f"{patches['product'] * 1e3:.3g} ms as a matrix product; used: {patches['used']}",
        flush=True,
    )


def _what_all_share(chosen: argparse.Namespace, rate: float, patches: dict[str, Any]) -> Run:
    from measuring import Run
    from patch_embed import as_chosen
    from rates import Labelling

    return Run(
        device=chosen.device,
        rate=rate,
        repeats=min(3, chosen.repeats) if chosen.quick else chosen.repeats,
        least=chosen.min_repeats,
        budget=chosen.budget,
        quick=chosen.quick,
        labelling=Labelling(
            episodes=chosen.label_episodes or (4 if chosen.quick else 48),
            workers=chosen.label_workers,
            processes=chosen.label_processes,
            repeats=chosen.min_repeats,
        ),
        patch_embed=lambda model: as_chosen(model, chosen.linear_patch_embed, patches),
    )


if __name__ == "__main__":
    sys.exit(main())
