"""AP, differences, CKA and the verdict's words."""

import contextlib
import io

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kd_ext.build.probe import blank_samples
from kd_ext.report.differences import compare
from kd_ext.report.features import cka, heat_map, read_layers
from kd_ext.report.precision import precision
from kd_ext.report.verdict import verdict
from tests.helpers import tiny_detectors as tiny
from tests.test_report.test_errors_by_kind import random_scene


def test_precision_is_pycocotools():
    truth, results = random_scene(0)
    truth['annotations'] = [dict(one, area=one['bbox'][2] * one['bbox'][3]) for one in truth['annotations']]
    found = precision(truth, results)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(one) for one in results]), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    for value, known in zip([found['mAP'], found['AP50'], found['AP75'], *found['sizes'].values()], evaluation.stats):
        assert value == (None if known < 0 else pytest.approx(100 * known))
    assert sum(found['classes'].values()) / 4 == pytest.approx(found['mAP'])


def test_precision_without_detections():
    truth, _ = random_scene(0)
    found = precision(truth, [])
    assert found['mAP'] == 0 and found['sizes']['large'] is None


def test_cka_against_its_definition():
    x, y = torch.randn(30, 5), torch.randn(30, 7)
    x, y = x - x.mean(0), y - y.mean(0)
    # the definition by cross-covariances, which the package never forms
    known = (y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
    assert cka(x, y) == pytest.approx(float(known), abs=1e-5)
    rotation = torch.linalg.qr(torch.randn(5, 5)).Q
    assert cka(x, 3 * x @ rotation) == pytest.approx(1, abs=1e-5)


def figures(mAP, ring=None):
    classes = dict(ring=mAP if ring is None else ring, disk=mAP)
    return dict(mAP=mAP, AP50=mAP, AP75=mAP, sizes=dict(small=mAP, large=None), classes=classes)


def gathered(distilled, alone, teacher=60.0):
    """Content of a report, of values by seed."""
    found = {f'distilled, seed {seed}': figures(value) for seed, value in distilled.items()}
    found.update({f'alone, seed {seed}': figures(value) for seed, value in alone.items()})
    errors = {name: dict(box=dict(count=1, cost=5.0)) for name in found}
    names = (
        {seed: f'{role}, seed {seed}' for seed in some} for role, some in (('distilled', distilled), ('alone', alone))
    )
    compared = compare(found, errors, *names)
    return dict(precision={'teacher': figures(teacher), **found}, differences=compared)


def texts(content):
    return [one['text'] for one in verdict(content)]


def test_paired_differences():
    compared = gathered({0: 31.0, 1: 33.0, 2: 32.0}, {0: 30.0, 1: 30.0, 2: 30.0})['differences']
    total = compared['total']['mAP']
    assert compared['seeds'] == [0, 1, 2] and total['mean'] == 2
    # s = 1, t(0.975, 2) = 4.30265, 4.30265 / sqrt(3) = 2.48414
    assert total['low'] == pytest.approx(2 - 2.48414, abs=1e-4)
    assert compared['sizes']['large'] is None and compared['errors']['box']['mean'] == 0


@pytest.mark.parametrize(
    ('gains', 'word', 'tone'),
    [
        ((3.0, 3.1, 2.9), 'Gained:', 'good'),
        ((-3.0, -3.1, -2.9), 'Lost:', 'bad'),
        ((5.0, -4.0, 0.5), 'Not resolved:', 'open'),
        ((3.0,), 'Not resolved, but higher:', 'open'),
    ],
)
def test_outcome(gains, word, tone):
    content = gathered({seed: 30 + gain for seed, gain in enumerate(gains)}, dict.fromkeys(range(len(gains)), 30.0))
    first = verdict(content)[0]
    assert first['text'].startswith(word) and first['tone'] == tone
    assert any('closes' in text for text in texts(content))


def test_outcome_without_a_common_seed_or_the_student_alone():
    assert 'without a common seed' in texts(gathered({0: 31.0}, {1: 30.0}))[0]
    content = gathered({0: 31.0}, {})
    assert content['differences'] is None and 'not known' in texts(content)[0]
    assert 'Nothing could be measured' in texts({})[0]


def test_a_teacher_that_is_no_better():
    found = [one for one in verdict(gathered({0: 31.0}, {0: 30.0}, teacher=30.4)) if 'no better' in one['text']]
    assert found[0]['tone'] == 'bad' and '30.4 against 30.0' in found[0]['text']


def term(losses, shares, factors=None):
    steps = list(range(len(losses)))
    factor = (steps, factors) if factors else ([], [])
    terms = dict(rcka=dict(loss=(steps, losses), share=(steps, shares), factor=factor))
    return dict(curves={'distilled, seed 0': dict(terms=terms)})


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (term([4.0, 3.9, 3.8], [0.3] * 3), 'hardly moved: it fell by 5%'),
        (term([4.0, 3.9, 4.4], [0.3] * 3), 'hardly moved: it rose by 10%'),
        (term([4.0, 3.0, 2.0], [0.3] * 3), 'The term rcka fell by 50%.'),
        # the factor fell, not the term
        (term([4.0, 3.0, 2.0], [0.3] * 3, [1.0, 0.75, 0.5]), 'hardly moved: it fell by 0%'),
        (
            term([4.0, 3.0, 2.0], [0.3, 0.5, 0.8]),
            'The share of rcka ran away, from 30% of the loss at the start to 80%',
        ),
        (term([4.0, 3.0, 2.0], [0.9, 0.8, 0.7]), 'rcka is most of the loss'),
        (term([4.0, 3.0, 2.0], [0.1, 0.01, 0.001]), 'rcka is 0.1% of the loss at the end'),
    ],
)
def test_words_on_terms(content, words):
    assert any(words in text for text in texts(content)), texts(content)


def test_words_on_layers():
    def heat(value):
        return dict(student=['neck[0]'], teacher=['neck[0]', 'neck[1]'], cka=[[value, 0.9]])

    rows = [['rcka', 'neck[0]', '8x4x4', '8', 'neck[0]', '8x4x4', '8', 'none', '0']]
    content = dict(cka=dict(before=heat(0.1), alone=heat(0.3), distilled=heat(0.8)), matches=dict(rows=rows))
    assert texts(content)[-1].endswith('CKA 0.10 before, 0.80 after, 0.30 of the student alone.')


@pytest.mark.parametrize(
    ('detector', 'layers'),
    [(tiny.fcos, ['backbone[0]', 'neck[0]', 'cls[0]', 'reg[0]']), (tiny.faster_rcnn, ['backbone[0]', 'neck[0]'])],
)
def test_layers_of_detectors(detector, layers):
    model = tiny.build(detector()).eval()
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = read_layers(model, inputs, blank_samples(model, inputs))
    assert set(layers) <= set(found) and all(len(rows) == 2 * 16 for rows in found.values())
    heat = heat_map(found, found)
    assert heat['student'] == heat['teacher'] == list(found)
    assert [heat['cka'][i][i] for i in range(len(found))] == pytest.approx([1.0] * len(found), abs=1e-3)
