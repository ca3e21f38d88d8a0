"""Two runs side by side: the same episodes, curves over each other, differences with their intervals.

In go two runs' rows by episode; out comes what JSON holds. An episode that only one of them has is counted, not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topreward.evaluation.rows import EpisodeRows, Row
from topreward.jobs.plan import REAL, TIME_INDEX
from topreward.metrics import bootstrap_mean
from topreward.report.page.episode import numbers
from topreward.report.tables import number


def common(first: Mapping[str, EpisodeRows], second: Mapping[str, EpisodeRows]) -> list[str]:
    """Ids that both have, in the first one's order."""
    return [name for name in first if name in second]


def differences(first: Mapping[str, EpisodeRows], second: Mapping[str, EpisodeRows]) -> list[dict[str, Any]]:
    """Per estimator of both: VOC of the second minus that of the first, over the episodes in which both are defined.

    The interval is a paired bootstrap: episodes are drawn, each with both its VOCs.
    """
    ids = common(first, second)
    shared = [name for name in _names(first, ids) if name in _names(second, ids)]
    out = []
    for name in shared:
        pairs = [(_voc(first[i], name), _voc(second[i], name)) for i in ids]
        found = bootstrap_mean([b - a for a, b in pairs])
        out.append(
            {
                "estimator": name,
                "mean": number(found.mean),
                "interval": "" if found.count < 2 else f"{found.low:+.3f} … {found.high:+.3f}",
                "pairs": found.count,
                "undefined": found.undefined,
                "apart": bool(found.count >= 2 and (found.low > 0 or found.high < 0)),
                "first": number(bootstrap_mean([a for a, _ in pairs]).mean),
                "second": number(bootstrap_mean([b for _, b in pairs]).mean),
            }
        )
    return out


def difference(first: EpisodeRows, second: EpisodeRows) -> dict[str, float | None]:
    """Per estimator of both, one episode's VOC in the second minus that in the first."""
    names = [name for name in _names({"": first}, [""]) if name in _names({"": second}, [""])]
    return {name: numbers([_voc(second, name) - _voc(first, name)], 4)[0] for name in names}


def _names(rows: Mapping[str, EpisodeRows], ids: list[str]) -> list[str]:
    return list(dict.fromkeys(row.estimator for i in ids for row in rows[i].rows if row.estimator != TIME_INDEX))


def _voc(rows: EpisodeRows, estimator: str) -> float:
    found: Row | None = next((r for r in rows.rows if (r.estimator, r.control) == (estimator, REAL)), None)
    return float("nan") if found is None else found.voc
