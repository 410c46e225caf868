"""Weights that are there already, scored like those of a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from mmengine.config import Config

from studies.cells import Cell
from studies.figures import points, read_score, surroundings
from studies.training import UNFINISHED, Training, write_whole


class Ready(Training):
    """A training that is done: its weights are scored on the test split of ``cfg``, once.

    Args:
        cell, cfg, digest, folder, metric: As for :class:`studies.training.Training`.
        weights (Path): The checkpoint.
    """

    def __init__(self, cell: Cell, cfg: Config, digest: str, folder: Path, metric: str, weights: Path) -> None:
        super().__init__(cell, cfg, digest, folder, metric)
        self.weights = weights

    @property
    def checkpoint(self) -> Path:
        """The weights that were given."""
        return self.weights

    def run(self, stop: Event, say: Callable[[str], None] = print) -> dict[str, Any]:
        """Scores, unless that is done: ``metric`` in points, and ``metrics``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(stop, say) as lock:
            known = self.record()
            if known is None:
                if self.state != UNFINISHED:
                    self._start_anew()
                self._call('score', ['tools/test.py', self.config, self.weights], lock, stop)
                metrics = {key: value for key, value in read_score(self.folder / 'score').items() if '/' in key}
                known = dict(
                    digest=self.digest, metric=points(metrics, self.metric), metrics=metrics, **surroundings()
                )
                write_whole(self.folder / 'result.json', json.dumps(known, indent=1) + '\n')
        return known
