"""The teacher's forward pass, only as far as the taps ask."""

import contextlib

import torch

from kd_ext.taps import PartTap, Reading, Watch
from kd_ext.taps.heads import own_loss_mode


class TeacherPass:
    """How far a teacher has to run for a set of taps.

    * Nothing at all where no tap asks for the teacher.
    * Taps on modules: the usual forward pass, left after the last of them.
    * Regions of the student: backbone and neck, then the head alone at the
      student's places.
    * Regions of its own (for running class means where the student's mean
      nothing to it): its own loss, still in eval mode.

    Args:
        taps (dict[str, Tap]): Those that need the teacher, by key.
        own (set[str]): Keys of region taps that read the teacher's own.
        classes (ClassMap, optional): For the labels of its own loss.
    """

    def __init__(self, taps, own=(), classes=None):
        self.taps, self.own = taps, set(own)
        self.classes = classes
        maps = [tap for tap in taps.values() if not tap.of_regions]
        self.shallow = all(isinstance(tap, PartTap) for tap in maps)
        self.shared = [key for key, tap in taps.items()
                       if tap.of_regions and key not in self.own]

    @torch.no_grad()
    def __call__(self, teacher, inputs, data_samples, seen_S):
        """Runs ``teacher`` on a batch that the student was read on.

        Returns:
            Reading: What the taps saw; with the student's labels where they
            read the student's regions.
        """
        stop_after = None
        if not self.shared and not self.own:
            stop_after = seen_S.maps.calls()
        reading = Reading(self.taps, teacher, 'teacher', stop_after, self.own)
        with reading, Watch(extract=(teacher, 'extract_feat')) as watch:
            self._run(teacher, inputs, data_samples, reading)
        for key in self.shared:
            features = watch.calls['extract'][-1].result
            reading.place(key, features, seen_S.regions(key))
        return reading

    def _run(self, teacher, inputs, data_samples, reading):
        if self.own:
            heads = [reading.heads[key].module for key in self.own]
            devices = [inputs.device] if inputs.is_cuda else []
            with contextlib.ExitStack() as stack:
                stack.enter_context(own_loss_mode(teacher, *heads))
                stack.enter_context(torch.random.fork_rng(devices))
                teacher(inputs, self.classes.to_teacher(data_samples),
                        mode='loss')
        elif self.shared and self.shallow:
            teacher.extract_feat(inputs)
        else:
            teacher(inputs, data_samples, mode='tensor')
