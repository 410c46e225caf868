import json

import pytest
import torch
from mmengine.config import Config
from torch.testing import assert_close

from benchmarks.step import beside
from benchmarks.step_cost import StepCost, memory_bound, overhead
from benchmarks.step_model import PRESETS, built_on, generated_batch, load_model
from benchmarks.step_rivals import pkd_rivals
from kd_ext.build.configs import find_config
from kd_ext.recipes import distill_entries
from tests.helpers import fresh_processes
from tests.helpers import tiny_detectors as tiny

ROI = dict(student=tiny.faster_rcnn, teacher=lambda: tiny.faster_rcnn(8))
DENSE = dict(student=tiny.fcos, teacher=lambda: tiny.fcos(8))


def step_cost(methods, detectors=ROI):
    model = load_model(config(methods, detectors))
    return StepCost(model, generated_batch(model, 64, 96, 2))


def config(methods, detectors=ROI):
    return Config(
        dict(
            model=dict(
                type='kd_ext.DetectionDistill',
                student=detectors['student'](),
                teacher=detectors['teacher'](),
                teacher_ckpt='file.pth',
                distill=distill_entries(methods),
            )
        )
    )


def calls_of(cost):
    """Parts of the teacher that its bare forward runs."""
    teacher, seen = cost.model.teacher, []
    parts = {'backbone': teacher.backbone, 'neck': teacher.neck}
    if hasattr(teacher, 'roi_head'):
        parts['rpn'] = teacher.rpn_head
        parts['head'] = teacher.roi_head.bbox_head.fc_cls
    else:
        parts['head'] = teacher.bbox_head
    handles = [module.register_forward_hook(lambda *_, name=name: seen.append(name)) for name, module in parts.items()]
    cost.teachers()
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    'methods, detectors, reach, calls',
    [
        (['lipschitz'], ROI, 'backbone', ['backbone']),
        (['rcka'], DENSE, 'neck', ['backbone', 'neck']),
        (['rcka', 'lipschitz'], ROI, 'neck', ['backbone', 'neck']),
        (['rcka', 'nd'], ROI, 'head', ['backbone', 'neck', 'head']),
        (['kd'], DENSE, 'head', ['backbone', 'neck', 'head']),
    ],
)
def test_bare_teacher_runs_as_far_as_needed(methods, detectors, reach, calls):
    cost = step_cost(methods, detectors)
    assert cost.reaches() == {'teacher': reach}
    assert calls_of(cost) == calls


@pytest.mark.parametrize('detectors', [ROI, DENSE])
def test_bare_teacher_does_what_the_step_does(detectors):
    # an ideal with less work than the teacher has would be no ideal
    cost = step_cost(['rcka', 'nd'], detectors)
    with torch.no_grad():
        levels = cost.model.teacher.extract_feat(cost.inputs['teacher'])
    assert_close(cost.seen['rcka'][1].levels('neck'), tuple(levels), check_stride=False)


def test_terms_are_those_of_the_step():
    cost = step_cost(['rcka', 'nd', 'lipschitz'])
    assert set(cost.terms()) == set(cost.model.distiller.terms)
    for name, args in cost.seen.items():
        value = cost.model.distiller.terms[name](*args)[f'loss_{name}']
        assert_close(float(value.detach()), cost.losses[f'loss_{name}'], rtol=1e-4, atol=1e-6)
        assert value.requires_grad
    shares = sum(value for key, value in cost.losses.items() if key.startswith('share_'))
    assert_close(shares, 1 - cost.losses['task'] / cost.losses['total'])


def test_runs_leave_no_gradient():
    cost = step_cost(['rcka', 'nd', 'nckd', 'lipschitz'])
    for run in (*cost.parts().values(), *cost.terms().values()):
        run()
    leaves = [leaf for args in cost.seen.values() for leaf in args[0].tensors()]
    assert all(tensor.grad is None for tensor in (*cost.model.parameters(), *leaves))


def test_matched_features_are_counted_once():
    # both entries read the same maps
    once, twice = (step_cost(methods, DENSE).memory()['matched'] for methods in (['rcka'], ['rcka', 'pkd']))
    levels = step_cost(['rcka'], DENSE).seen['rcka'][1].levels('neck')
    assert once == sum(one.numel() for one in levels) * 4 / 2**20
    assert twice < 2 * once


def test_overhead_by_hand():
    # 12 to 10, 33 to 30 and 100 to 80 s: ratios 1.2, 1.1 and 1.25
    found = overhead(
        dict(
            student=[6.0, 20.0, 60.0],
            teacher=[4.0, 10.0, 20.0],
            distilled=[12.0, 33.0, 100.0],
            rcka=[1.0, 2.0, 3.0],
            nd=[0.5, 0.5, 0.5],
        ),
        ['rcka', 'nd'],
    )
    assert found['ratio'] == 1.2
    # 2, 3 and 20 s more, of which 1.5, 2.5 and 3.5 s are terms
    assert found['extra_ms'] == 3e3
    assert found['terms_ms'] == 2.5e3
    assert found['other_ms'] == 500


def test_memory_by_hand():
    weights = dict(student=10.0, teachers=30.0, matched=5.0)
    found = memory_bound(dict(student=55.0, distilled=70.0), weights)
    assert found == pytest.approx(dict(used=110.0, allowed=110.0, ratio=1.0))
    assert memory_bound(dict(student=None, distilled=None), weights) is None


def test_rivals_compute_the_same():
    model = step_cost(['rcka']).model
    batch = generated_batch(model, 64, 96, 2)
    values = []
    for rival in pkd_rivals(model).values():
        losses = rival(**batch, mode='loss')
        values.append(float(sum(value for key, value in losses.items() if 'loss_pkd' in key).detach()))
    assert values[0] > 0
    assert_close(values[1:], values[:1] * 2)


def test_another_distillation_shares_the_models():
    model = step_cost(['rcka']).model
    other = built_on(model, distill_entries(['lipschitz']))
    assert other.student is model.student and other.teacher is model.teacher


@pytest.mark.parametrize('name', PRESETS)
def test_presets_are_there(name):
    path, methods = PRESETS[name]
    cfg = Config.fromfile(find_config(path))
    assert cfg.model.type == 'kd_ext.DetectionDistill'
    assert methods is None or distill_entries(methods)


def test_a_plain_detector_needs_a_teacher():
    cfg = Config(dict(model=tiny.fcos()))
    with pytest.raises(ValueError, match='config to be one that distills'):
        load_model(cfg)


def test_tool(tmp_path):
    path, out = tmp_path / 'tiny.py', tmp_path / 'step.json'
    config(['rcka', 'nckd']).dump(path)
    options = ['--size', '64x96', '--repeats', '1', '--threads', '1', '--razor', '--json']
    process = fresh_processes.run('-m', 'benchmarks.step', path, *options, out)
    assert process.returncode == 0, process.stderr
    assert 'distilled / (student + teacher)' in process.stdout
    report = json.loads(out.read_text())['configs'][str(path)]
    assert list(report['candidates'])[:3] == ['student', 'teacher', 'distilled']
    assert {'term rcka', 'term nckd', 'mmrazor FpnTeacherDistill + PKD'} <= (set(report['candidates']))
    assert report['overhead']['ratio'] > 0
    assert all(one['ratio'] > 0 for one in report['to_rivals'].values()) and len(report['to_rivals']) == 2


def test_beside_a_rival_repeat_by_repeat():
    assert beside(dict(ours=[1.0, 6.0, 3.0], razor=[2.0, 6.0, 4.0]), 'ours', 'razor') == dict(
        ratio=0.75, ratio_quartiles=[0.625, 0.875]
    )
