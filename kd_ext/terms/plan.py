"""Reads what the entries of ``distill=`` ask for: losses, settings, teachers, taps and shapes of the tapped maps."""

from __future__ import annotations

from typing import Any, Mapping

import torch

from kd_ext.build.probe import blank_samples, probing
from kd_ext.errors import near_matches, value_error
from kd_ext.taps import ModuleTap, PartTap, Reading, RegionTap, build_tap
from kd_ext.terms.entry import OF_MAPS, OF_REGIONS, split_entry
from kd_ext.terms.term import Settings


def split_entries(distill: dict[str, dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], dict[str, Settings]]:
    """Loss configs and settings of the entries, by name; entries that share another's connectors come last.

    They are sorted, because MMEngine sorts the keys of a config that it dumps, and the order of terms changes the
    rounding of their sum.
    """
    split = {name: split_entry(name, cfg) for name, cfg in distill.items()}
    names = sorted(split, key=lambda name: (isinstance(split[name][1].get('connector'), str), name))
    return {name: split[name][0] for name in names}, {name: Settings(**split[name][1]) for name in names}


def chosen_teacher(name: str, settings: Settings, teachers: Mapping[str, Any]) -> str:
    """The name of an entry's teacher."""
    chosen = settings.teacher
    if chosen is None and len(teachers) == 1:
        return next(iter(teachers))
    if not isinstance(chosen, str) or chosen not in teachers:
        remedy = 'With several teachers each entry says which one it is of.'
        if chosen is not None:
            remedy = near_matches(chosen, teachers)
        raise value_error(f'distill.{name}.teacher', f'one of {", ".join(teachers)}', repr(chosen), remedy)
    return chosen


def entry_tap(name: str, settings: Settings) -> ModuleTap | RegionTap:
    """The tap of an entry; refuses settings that another kind of tap has."""
    tap = build_tap(settings.at, settings.stage, settings.levels)
    of_regions = isinstance(tap, RegionTap)
    for setting in OF_MAPS if of_regions else OF_REGIONS:
        if getattr(settings, setting) is not None:
            rule = f"without {setting} {'where' if of_regions else 'unless'} at is 'embedding' or 'logits'"
            raise value_error(f'distill.{name}', rule, f'at={settings.at!r}')
    return tap


def probe_taps(taps: Mapping[str, Any], model: Any, role: str) -> tuple[dict[str, list[torch.Size]], dict[str, int]]:
    """Shapes of the tapped maps of a blank image, and how often each module runs, by tap key."""
    taps = {key: tap for key, tap in taps.items() if not tap.of_regions}
    if not taps:
        return {}, {}
    shallow = all(isinstance(tap, PartTap) for tap in taps.values())
    with probing(model) as inputs, Reading(taps, model, role, dict.fromkeys(taps, 1) if shallow else None) as reading:
        model(inputs, blank_samples(model, inputs), mode='tensor')
    return {key: [level.shape for level in reading.levels(key)] for key in taps}, reading.maps.counts()
