"""Under ``torch.compile`` and in channels-last memory losses give what they always give."""

import pytest
import torch
from torch.testing import assert_close

from benchmarks.growth_model import ENTRIES, Usual, prepare
from kd_ext.algorithms import DetectionDistill
from tests.helpers import tiny_detectors as tiny

GIVEN = Usual(pixels=(64, 96), batch=3, regions=24, classes=5, width=8, embedding=16)
OURS = sorted(name for name, entry in ENTRIES.items() if entry['type'].startswith('kd_ext.'))
MAPS = [name for name in OURS if ENTRIES[name]['at'] in ('neck', 'backbone')]


def run(name, change=lambda forward: forward, layout=lambda leaf: leaf):
    """Value and gradients; ``layout`` is applied to what the loss is given."""
    torch.manual_seed(0)
    leaves, teacher, forward = prepare(name, GIVEN)
    for one in (*leaves, *teacher):
        one.data = layout(one.data)
    value = change(forward)()
    value.backward()
    return value.detach(), [leaf.grad for leaf in leaves]


# mmrazor's PKDLoss does not compile: torch cannot trace its views
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('name', OURS)
def test_compiled_losses(name):
    torch._dynamo.reset()
    found = run(name, lambda forward: torch.compile(forward, backend='aot_eager'))
    assert_close(found, run(name), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('name', MAPS)
def test_losses_of_channels_last_maps(name):
    found = run(name, layout=lambda maps: maps.contiguous(memory_format=torch.channels_last))
    assert_close(found, run(name), rtol=1e-4, atol=1e-7, check_stride=False)


OF_MAPS = dict(
    rcka=tiny.rcka(),
    module=tiny.rcka(at='neck.fpn_convs.0'),
    lipschitz=dict(type='kd_ext.LipschitzLoss', at='backbone'),
    pkd=dict(type='mmrazor.PKDLoss', at='neck'),
    cwd=dict(type='mmrazor.ChannelWiseDivergence', at='neck'),  # which takes no channels-last maps itself
)
OF_REGIONS = dict(nd=dict(type='kd_ext.NDLoss', at='embedding'), kd=dict(type='kd_ext.LogitKLLoss', at='logits'))


@pytest.mark.parametrize('which', ['student', 'both'])
@pytest.mark.parametrize(
    ('detector', 'entries'),
    # a last digit that rounds otherwise makes Faster R-CNN sample other regions
    [(tiny.fcos, {**OF_MAPS, **OF_REGIONS}), (tiny.faster_rcnn, OF_MAPS)],
    ids=['fcos', 'faster_rcnn'],
)
def test_a_step_of_a_channels_last_student(detector, entries, which):
    found = []
    for last in (False, True):
        model: DetectionDistill = tiny.distill(detector(), detector(8), **entries).train()
        data = model.data_preprocessor(tiny.batch(), True)
        if last:
            model.student.to(memory_format=torch.channels_last)
            data['inputs'] = data['inputs'].contiguous(memory_format=torch.channels_last)
            if which == 'both':
                model.teacher.to(memory_format=torch.channels_last)
        torch.manual_seed(0)
        losses = model(**data, mode='loss')
        model.parse_losses(losses)[0].backward()
        terms = {key: value.detach() for key, value in losses.items() if 'loss' in key and 'distill' in key}
        found.append((terms, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    assert set(found[0][0]) == {f'distill.loss_{name}' for name in entries}
    assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-6)
    if detector is tiny.faster_rcnn:
        return
    for name, grad in found[0][1].items():
        other = found[1][1][name]
        assert float((grad - other).norm()) <= 1e-3 * float(grad.norm()) + 1e-5, name
