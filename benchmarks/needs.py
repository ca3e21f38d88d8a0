"""The workloads' names, and what each must be able to import.

In go chosen workloads; out comes one line for each thing that is missing. Standard library only, so that it can
speak before anything else fails.
"""

from __future__ import annotations

from importlib import import_module

CLIPS = ("paper", "patches", "every-patch", "native", "90s", "8-instructions", "10min")
"""One clip in several ways."""
OTHERS = ("exactness", "short-clips", "label", "delta-rule")
WORKLOADS = (*CLIPS, *OTHERS)
QUANTIZATIONS = ("int8", "nf4")

# Module → the distribution that holds it. Most matter only through their own needs: import says so.
ALWAYS = {
    "numpy": "numpy",
    "psutil": "psutil",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "pydantic": "pydantic",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
    "torch": "torch",
    "transformers": "transformers",
}
LABEL = {"av": "av", "pyarrow.parquet": "pyarrow"}
QUANTIZED = {"bitsandbytes": "bitsandbytes"}
ENCODERS = ("libx264", "libsvtav1")


def missing(workloads: list[str], quantizations: list[str]) -> list[str]:
    """What cannot be imported, each with the reason and the workloads that need it."""
    found = _absent(ALWAYS, "every workload")
    if "label" in workloads:
        found += _absent(LABEL, "label")
        if not any("av (" in line for line in found):
            known = import_module("av").codecs_available
            found += [f"av's encoder {name}, for label" for name in ENCODERS if name not in known]
    if quantizations:
        found += _absent(QUANTIZED, ", ".join(quantizations))
    return found


def _absent(modules: dict[str, str], who: str) -> list[str]:
    out = []
    for module, distribution in modules.items():
        try:
            import_module(module)
        except Exception as error:  # native libraries fail at import in many ways
            why = " ".join(str(error).split())[:200] or type(error).__name__
            out.append(f"{distribution} ({why}), for {who}")
    return out
