r"""How alike the layers of two models are: CKA of their maps on the same images.

Each map is averaged to a grid of G x G places, so that the I G^2 rows of two layers stand for the same places:
:math:`CKA(X, Y)` of (I G^2, C) and (I G^2, C'), centred, 1 where one is a scaled rotation of the other.

Source: Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019, arXiv 1905.00414.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from kd_ext.data.regions import stream_samples, undisturbed
from kd_ext.losses.cka import Task, alignment_loss
from kd_ext.taps.recorder import Recorder, as_tensors
from kd_ext.teachers.inputs import InputAdapter

GRID = 4
TASK = Task(rows=1.0, columns=0.0, center=True)


def read_layers(model: Any, inputs: Tensor, samples: list) -> dict[str, Tensor]:
    """Grid rows (B G^2, C) of each map of backbone and neck, and of the last convs of a dense head's branches."""
    sources = {name: part for name, part in model.named_children() if name in ('backbone', 'neck')}
    needed = dict.fromkeys(sources, 1)
    for branch in ('cls_convs', 'reg_convs'):
        convs = getattr(getattr(model, 'bbox_head', None), branch, None)
        if isinstance(convs, nn.ModuleList) and len(convs) and not isinstance(convs[-1], nn.ModuleList):
            sources[branch[:3]], needed[branch[:3]] = convs[-1], 1
    with Recorder(sources, None if len(needed) > 2 else needed) as seen:
        model(inputs, samples, mode='tensor')
    return {
        f'{name}[{level}]': adaptive_avg_pool2d(one.float(), GRID).permute(0, 2, 3, 1).flatten(0, 2)
        for name in sources
        for level, one in enumerate(as_tensors([call.result for call in seen.calls[name]], name))
        if one.dim() == 4
    }


def cka(preds_S: Tensor, preds_T: Tensor) -> float:
    """CKA of the rows (P, C) and (P, C'), between 0 and 1."""
    value, _ = alignment_loss(preds_S.double()[None], preds_T.double()[None], TASK)
    return 1 - float(value)


@torch.no_grad()
def rows_of(models: dict[str, Any], images: Any, indices: Sequence[int]) -> dict[str, dict[str, Tensor]]:
    """Rows of each layer of each model on the same images, prepared as in training.

    Args:
        models: By name; the data preprocessor of the first one, a student, prepares the images.
        images: The :class:`SplitImages`.
        indices: Images to use.
    """
    main = next(iter(models.values()))
    adapters = {name: InputAdapter(main, model) for name, model in models.items()}
    rows: dict[str, dict[str, list[Tensor]]] = {name: {} for name in models}
    for _, sample in stream_samples(images, indices):
        batch = main.data_preprocessor({key: [value] for key, value in sample.items()}, False)
        for name, model in models.items():
            inputs = adapters[name](batch['inputs'], batch['data_samples'])
            with undisturbed(model):
                for layer, values in read_layers(model, inputs, batch['data_samples']).items():
                    rows[name].setdefault(layer, []).append(values.cpu())
    return {name: {layer: torch.cat(values) for layer, values in layers.items()} for name, layers in rows.items()}


def heat_map(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, Any]:
    """CKA of every layer of the student (rows) with every one of the teacher (columns)."""
    values = [[round(cka(one, other), 4) for other in teacher.values()] for one in student.values()]
    return dict(student=list(student), teacher=list(teacher), cka=values)
