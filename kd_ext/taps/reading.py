"""Reads one forward pass with all taps at once."""

from __future__ import annotations

import contextlib
from typing import Any

from torch import Tensor, nn

from kd_ext.taps.heads import Head, Regions
from kd_ext.taps.recorder import Recorder
from kd_ext.taps.tap import ModuleTap, RegionTap


class Reading:
    """Context in which taps read a pass of one model.

    Args:
        role: ``'student'`` or ``'teacher'``, for messages.
        stop_after: See :class:`Recorder`.
        own: Keys of the region taps that read the model's own regions, for which the pass has to run its loss;
            None means all.
    """

    def __init__(
        self,
        taps: dict[str, ModuleTap | RegionTap],
        model: nn.Module,
        role: str,
        stop_after: dict[str, int] | None = None,
        own: set[str] | None = None,
    ) -> None:
        self.maps = Recorder(
            {key: tap.source(model, role) for key, tap in taps.items() if isinstance(tap, ModuleTap)}, stop_after
        )
        self.heads: dict[str, Head] = {
            key: tap.head(model, role) for key, tap in taps.items() if isinstance(tap, RegionTap)
        }
        self._watches = {key: head.watch() for key, head in self.heads.items() if own is None or key in own}
        self._regions: dict[str, Regions] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Reading:
        for watch in self._watches.values():
            self._stack.enter_context(watch)
        self._stack.enter_context(self.maps)
        return self

    def __exit__(self, *error: Any) -> bool | None:
        done = self._stack.__exit__(*error)
        if error[0] is None:
            # here, because the gradient mode is that of the pass
            self._regions = {key: self.heads[key].regions(watch) for key, watch in self._watches.items()}
        return done

    def levels(self, key: str) -> tuple[Tensor, ...]:
        """See :meth:`Recorder.levels`."""
        return self.maps.levels(key)

    def regions(self, key: str) -> Regions:
        """The :class:`Regions` of a tap."""
        return self._regions[key]

    def place(self, key: str, features: tuple[Tensor, ...], regions: Regions) -> None:
        """Reads a tap at the regions of another model, with their labels."""
        self._regions[key] = self.heads[key].at(features, regions.places)._replace(labels=regions.labels)
