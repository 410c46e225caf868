"""Spectral norms between backbone stages of models, over a data set.

Shapes: I images, n compared stages. Stage k is (1, C_k, H_k, W_k): one image per pass. Sigmas are (I, n - 1), from
:func:`kd_ext.losses.spectral.stage_sigmas`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from torch import Tensor, nn

from kd_ext.build.probe import blank_samples, probing
from kd_ext.data.progress import ImageProgress
from kd_ext.data.regions import stream_samples, undisturbed
from kd_ext.errors import value_error
from kd_ext.losses.spectral import EPS, stage_sigmas
from kd_ext.taps import Reading, build_tap
from kd_ext.teachers.inputs import InputAdapter
from kd_ext.terms.level_pairing import pair_levels, stride_of

PLACE = 'backbone'


@dataclass
class Spectra:
    """The spectral norms of one model: of each image and pair of stages.

    Attributes:
        sigmas: (I, n - 1), float64.
        widths, strides: Of the n stages.
    """

    sigmas: Tensor
    widths: list[int]
    strides: list[int | None]

    def numbers(self) -> dict[str, list]:
        """Statistics over the images: a list each, with one number per pair of stages."""
        sigmas = self.sigmas
        values = dict(mean=sigmas.mean(0), std=sigmas.std(0, correction=0), min=sigmas.amin(0), max=sigmas.amax(0))
        return {key: value.tolist() for key, value in values.items()}


def relative_gaps(student: Spectra, teacher: Spectra) -> list[float]:
    """Mean over the images of abs(s - t) / t, for each pair of stages."""
    gaps = (student.sigmas - teacher.sigmas).abs() / (teacher.sigmas + EPS)
    return gaps.mean(0).tolist()


def read_stages(model: nn.Module, inputs: Tensor, samples: list, role: str) -> tuple[Tensor, ...]:
    """The backbone's stages, without running the rest; raises a ``ValueError`` if the model has no backbone."""
    tap = build_tap(PLACE)
    with Reading({PLACE: tap}, model, role, {PLACE: 1}) as reading:
        model(inputs, samples, mode='tensor')
    return reading.levels(PLACE)


def probe_stages(model: nn.Module, role: str) -> list[torch.Size]:
    """Shapes of the backbone's stages for a blank image."""
    with probing(model) as inputs:
        stages = read_stages(model, inputs, blank_samples(model, inputs), role)
    return [stage.shape for stage in stages]


def compared_levels(shapes: dict[str, list[torch.Size]], levels: Sequence | None = None) -> dict[str, list[int]]:
    """The backbone levels of each model that are compared.

    Args:
        shapes: Stage shapes by role: of one model, or of ``student`` and ``teacher``, which are paired as in
            training.
        levels: See :func:`kd_ext.terms.level_pairing.pair_levels`.

    Raises:
        ValueError: Fewer than two stages, or no such level.
    """
    student = shapes.get('student') or next(iter(shapes.values()))
    teacher = shapes.get('teacher') or student
    pairs = pair_levels('lipschitz', levels, student, teacher, least=0)
    if len(pairs) < 2 or any(len(side[level]) != 4 for pair in pairs for side, level in zip((student, teacher), pair)):
        found = ' and '.join(
            f'those of the {role} with '
            + ', '.join(f'stride {stride_of(one)}' if stride_of(one) else f'shape {tuple(one)}' for one in sizes)
            for role, sizes in shapes.items()
        )
        rule = 'maps of which two or more have a partner of their stride' if len(shapes) > 1 else 'two maps or more'
        remedy = 'Name pairs of a student and a teacher level, --levels 0:1 1:2, or take other out_indices.'
        raise value_error("the backbone's stages", rule, found, remedy)
    sides = dict(student=[i for i, _ in pairs], teacher=[j for _, j in pairs])
    return {role: sides.get(role, sides['student']) for role in shapes}


class SpectraJob:
    """Measures spectral norms over images; each process takes its share.

    Args:
        data: The :class:`SplitImages`, of which the images at ``indices`` are used.
        num_iters: Most steps of the power iteration.
        levels: See :func:`compared_levels`.
        workers: Data workers of each process.
    """

    def __init__(
        self, data: Any, indices: Sequence[int], num_iters: int = 30, levels: Sequence | None = None, workers: int = 0
    ) -> None:
        self.data, self.indices = data, list(indices)
        self.num_iters, self.levels = num_iters, levels
        self.workers = workers

    @torch.no_grad()
    def run(self, models: dict[str, Any]) -> dict[str, Spectra]:
        """Measures each model, by role; every process has to call it.

        The data preprocessor of the student, or of the only model, prepares the images; a teacher gets them as in
        training.

        Raises:
            ValueError: Stages cannot be compared, or a sigma is inf or NaN.
        """
        shapes = {role: probe_stages(model, role) for role, model in models.items()}
        levels = compared_levels(shapes, self.levels)
        count = len(next(iter(levels.values()))) - 1
        sigmas = {role: torch.zeros(len(self.indices), count, dtype=torch.double) for role in models}
        main = models.get('student') or next(iter(models.values()))
        adapters = {role: InputAdapter(main, model) for role, model in models.items()}
        for row, batch in self._batches(main):
            for role, model in models.items():
                samples = batch['data_samples']
                inputs = adapters[role](batch['inputs'], samples)
                with undisturbed(model):
                    stages = read_stages(model, inputs, samples, role)
                values = stage_sigmas([stages[level].float() for level in levels[role]], self.num_iters)[:, 0]
                sigmas[role][row] = self._finite(values, row, role)
        for values in sigmas.values():
            all_reduce(values)
        return {
            role: Spectra(
                sigmas[role],
                [shapes[role][level][1] for level in levels[role]],
                [stride_of(shapes[role][level]) for level in levels[role]],
            )
            for role in models
        }

    def _batches(self, model: Any) -> Iterator[tuple[int, dict]]:
        """Row index and preprocessed batch of each image of this process."""
        mine = self.indices[get_rank() :: get_world_size()]
        rows = range(get_rank(), len(self.indices), get_world_size())
        with ImageProgress('spectral norms', len(self.indices)) as progress:
            for row, (_, sample) in zip(rows, stream_samples(self.data, mine, self.workers)):
                yield row, model.data_preprocessor({key: [value] for key, value in sample.items()}, False)
                progress.step()

    def _finite(self, values: Tensor, row: int, role: str) -> Tensor:
        if not bool(values.isfinite().all()):
            index = self.indices[row]
            raise value_error(
                f'the sigmas of the {role}',
                'finite',
                f'{[round(value, 3) for value in values.tolist()]} on image '
                f'{index} of the data set: {self.data.path(index)}',
                'Check the checkpoint.',
            )
        return values.double().cpu()
