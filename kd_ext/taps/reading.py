"""One forward pass, read by all taps at once."""

import contextlib

from kd_ext.taps.recorder import Recorder


class Reading:
    """Context in which taps read a pass of one model.

    Args:
        taps (dict[str, Tap]): Taps by key.
        model (nn.Module): The detector.
        role (str): ``'student'`` or ``'teacher'``, for messages.
        stop_after (dict[str, int], optional): See :class:`Recorder`.
        own (set[str], optional): Keys of region taps that read the model's own regions in the pass, which has to
            hold its loss; all if None.
    """

    def __init__(self, taps, model, role, stop_after=None, own=None):
        self.maps = Recorder(
            {key: tap.source(model, role) for key, tap in taps.items() if not tap.of_regions}, stop_after
        )
        self.heads = {key: tap.head(model, role) for key, tap in taps.items() if tap.of_regions}
        self._watches = {key: head.watch() for key, head in self.heads.items() if own is None or key in own}
        self._regions = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        for watch in self._watches.values():
            self._stack.enter_context(watch)
        self._stack.enter_context(self.maps)
        return self

    def __exit__(self, *error):
        done = self._stack.__exit__(*error)
        if error[0] is None:
            # here, because the gradient mode is that of the pass
            self._regions = {key: self.heads[key].regions(watch) for key, watch in self._watches.items()}
        return done

    def levels(self, key):
        """See :meth:`Recorder.levels`."""
        return self.maps.levels(key)

    def regions(self, key):
        """The :class:`Regions` of a tap."""
        return self._regions[key]

    def place(self, key, features, regions):
        """Reads a tap at the regions of another model, with their labels."""
        self._regions[key] = self.heads[key].at(features, regions.places)._replace(labels=regions.labels)
