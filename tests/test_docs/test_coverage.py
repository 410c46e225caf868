"""Every cell of the table of methods and heads in docs/coverage.md is a training step."""

import pytest

from kd_ext.recipes import PARTS
from tests.helpers import coverage_table as coverage
from tests.helpers import detector_zoo as zoo
from tests.helpers import tiny_detectors as tiny

# one of each kind; the others are steps of the slow tests
QUICK = (
    'Faster R-CNN',
    'Mask R-CNN',
    'FCOS',
    'RetinaNet',
    'ATSS',
    'YOLOX',
    'SSD',
    'DETR',
    'YOLOF',
    'SOLO',
    'Mask2Former',
)
HEADS = [pytest.param(head, marks=() if head in QUICK else pytest.mark.slow) for head in zoo.ALL]


@pytest.mark.parametrize('method', coverage.METHODS)
@pytest.mark.parametrize('head', HEADS)
def test_step(head, method):
    assert coverage.outcome(head, method) == coverage.recorded()[head][method]


@pytest.mark.parametrize('method', [name for name, entry in coverage.METHODS.items() if entry['at'] == 'neck'])
@pytest.mark.parametrize('head', ['Mask2Former', 'MaskFormer', 'CornerNet'])
def test_no_neck_leaves_the_backbone(head, method):
    assert coverage.recorded()[head][method] == coverage.NO_NECK
    term = dict(coverage.METHODS[method], at='backbone')
    model = tiny.distill(zoo.detector(head), zoo.detector(head, 8), term=term)
    value = tiny.losses(model.train(), zoo.batch(head))['distill.loss_term']
    value.backward()
    assert float(value.detach()) > 0
    first = next(model.student.backbone.parameters())
    assert bool(first.grad.isfinite().all()) and bool(first.grad.any())


def test_rows_are_the_detectors_of_the_zoo():
    assert list(coverage.recorded()) == list(zoo.ALL)


def test_columns_are_the_ready_entries():
    names = [path.stem for path in sorted(PARTS.glob('*.py'))]
    assert all(list(row) == names for row in coverage.recorded().values())


def test_the_page_shows_what_is_recorded():
    assert coverage.page_table() == coverage.table(coverage.recorded())
