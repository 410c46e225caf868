"""Differences between the distilled student and the student alone, paired by seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from kd_ext.report.statistics import paired


def compare(
    found: Mapping[str, dict], errors: Mapping[str, dict], distilled: dict[Any, str], alone: dict[Any, str]
) -> dict[str, Any] | None:
    """Differences of every figure; None without both.

    Args:
        found: :func:`kd_ext.report.precision.precision` by run.
        errors: :func:`kd_ext.report.errors_by_kind.error_costs` by run.
        distilled, alone: Name of the run of each seed.

    Returns:
        ``seeds``, the common ones, and under ``total``, ``sizes``, ``classes`` and ``errors`` for each figure
        ``alone`` and ``distilled`` (means), ``mean`` (of the difference) and, from two common seeds on, the 95%
        interval ``low`` to ``high``.
    """
    if not distilled or not alone:
        return None
    seeds = [seed for seed in distilled if seed in alone]
    pairs = [(distilled[seed], alone[seed]) for seed in seeds]
    names = (
        ([one for one, _ in pairs], [other for _, other in pairs])
        if pairs
        else (list(distilled.values()), list(alone.values()))
    )

    def figure(of: Any) -> dict[str, float] | None:
        new, old = ([of(name) for name in side] for side in names)
        if None in new or None in old:
            return None
        result = dict(alone=statistics.fmean(old), distilled=statistics.fmean(new))
        result['mean'] = result['distilled'] - result['alone']
        if len(pairs) > 1:
            known = paired([one - other for one, other in zip(new, old)])
            result.update(low=known.low, high=known.high)
        return result

    first = found[names[0][0]]
    return dict(
        seeds=seeds,
        total={key: figure(lambda name, key=key: found[name][key]) for key in ('mAP', 'AP50', 'AP75')},
        sizes={key: figure(lambda name, key=key: found[name]['sizes'][key]) for key in first['sizes']},
        classes={key: figure(lambda name, key=key: found[name]['classes'][key]) for key in first['classes']},
        errors={
            key: figure(lambda name, key=key: errors[name][key]['cost']) for key in next(iter(errors.values()), {})
        },
    )
