"""Runs the teacher's forward pass, only as far as the taps need it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from kd_ext.taps import PartTap, Reading, Watch
from kd_ext.taps.heads import own_loss_mode
from kd_ext.teachers.class_map import ClassMap


class TeacherPass:
    """One forward pass of a teacher, as far as a set of taps needs it.

    * Taps on modules: the usual forward pass, stopped after the last tapped module.
    * Region taps at the student's regions: backbone and neck, then the head alone at those regions.
    * Region taps at the teacher's own regions (for running class means where the student's regions cannot be
      used): the teacher's own loss, in eval mode.

    The pass runs before the student's where it can. Memory that it frees then does not add to the activations that
    the student keeps for its backward pass.

    Args:
        taps: Taps that need the teacher, by key.
        own: Keys of the region taps at the teacher's own regions.
        classes: Maps the labels for the teacher's own loss.
        calls: How often the module of each tap on maps runs in one pass of this teacher.

    Attributes:
        waits: Whether the pass must follow the student's, because the teacher's own loss may change the samples.
    """

    def __init__(
        self, taps: dict, own: Collection[str] = (), classes: ClassMap | None = None, calls: Any = ()
    ) -> None:
        self.taps, self.own = taps, set(own)
        self.classes: Any = classes
        self.calls = dict(calls)
        maps = [tap for tap in taps.values() if not tap.of_regions]
        self.shallow = all(isinstance(tap, PartTap) for tap in maps)
        self.shared = [key for key, tap in taps.items() if tap.of_regions and key not in self.own]
        self.waits = bool(self.own)
        self._reading: Any = None
        self._features: Any = None

    @torch.no_grad()
    def run(self, teacher: Any, inputs: Tensor, data_samples: list | None) -> None:
        """Runs the teacher in eval mode; all but its head at the student's regions, which :meth:`read` adds."""
        stop_after = None
        if not self.shared and not self.own:
            stop_after = {key: self.calls[key] for key in self.taps}
        reading = Reading(self.taps, teacher, 'teacher', stop_after, self.own)
        with reading, Watch(extract=(teacher, 'extract_feat')) as watch:
            self._run(teacher, inputs, data_samples, reading)
        if self.shared:
            self._features = watch.calls['extract'][-1].result
        self._reading = reading

    @torch.no_grad()
    def read(self, seen_S: Reading) -> Reading:
        """What the taps recorded, with the student's labels at its regions; ``seen_S`` is its reading of the batch."""
        for key in self.shared:
            self._reading.place(key, self._features, seen_S.regions(key))
        return self._reading

    def _run(self, teacher: Any, inputs: Tensor, data_samples: list | None, reading: Reading) -> None:
        if self.own:
            heads = [reading.heads[key].module for key in self.own]
            devices = [inputs.device] if inputs.is_cuda else []
            with contextlib.ExitStack() as stack:
                stack.enter_context(own_loss_mode(teacher, *heads))
                stack.enter_context(torch.random.fork_rng(devices))
                teacher(inputs, self.classes.to_teacher(data_samples), mode='loss')
        elif self.shared and self.shallow:
            teacher.extract_feat(inputs)
        else:
            teacher(inputs, data_samples, mode='tensor')
