"""``mmcv._ext`` where mmcv has none: it appears there and only there, and detectors train with it."""

import json
import sys

import pytest

from tests.helpers.fresh_processes import run
from tests.helpers.without_ops import compiled, hide_ops

DETECTORS = """
import sys; sys.path.insert(0, '.')
import json, kd_ext, torch
from tests.helpers import tiny_detectors as tiny
found = {}
for name in ('fcos', 'faster_rcnn'):
    model = tiny.build(getattr(tiny, name)())
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    steps = []
    for _ in range(2):
        loss, named = model.parse_losses(tiny.losses(model))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps.append({key: float(value) for key, value in named.items()})
    model.eval()
    model.test_cfg.get('rcnn', model.test_cfg).score_thr = 0.0
    with torch.no_grad():
        boxes = [one.pred_instances for one in model.test_step(tiny.batch())]
    found[name] = dict(steps=steps, boxes=[torch.cat([one.bboxes, one.scores[:, None]], 1).tolist() for one in boxes])
import mmcv._ext
found['compiled'] = getattr(mmcv._ext, '__file__', None) is not None
print(json.dumps(found))
"""


@pytest.fixture(scope='module')
def without(tmp_path_factory):
    return hide_ops(tmp_path_factory.mktemp('lite'))


@pytest.mark.slow
def test_detectors_train_and_predict_the_same(without):
    compiled()
    results = []
    for env in (None, without):
        done = run('-c', DETECTORS, env=env)
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(json.loads(done.stdout.splitlines()[-1]))
        slow = 'mmcv has no compiled operators' in done.stderr + done.stdout
        assert slow is not results[-1]['compiled'], 'the log names the slow route where it is taken'
    assert [one['compiled'] for one in results] == [True, False]
    for name in ('fcos', 'faster_rcnn'):
        wanted, found = (one[name] for one in results)
        assert sum(map(len, wanted['boxes'])) > 10
        for a, b in zip(wanted['steps'], found['steps']):
            assert b == pytest.approx(a, rel=1e-5, abs=1e-5)
        for a, b in zip(wanted['boxes'], found['boxes']):
            assert len(a) == len(b)
            assert all(y == pytest.approx(x, abs=1e-3) for x, y in zip(a, b))


def test_mmcv_lite_needs_it(without):
    done = run('-c', 'import mmcv.ops', env=without)
    assert "No module named 'mmcv._ext'" in done.stderr


def test_everything_of_mmcv_and_mmdet_imports(without):
    done = run(
        '-c', 'import kd_ext, mmcv.ops, mmdet.models; from mmcv.utils import collect_env as e; print(e())', env=without
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "('MMCV Compiler', 'none')" in done.stdout


def test_a_missing_operator_says_how_to_compile(without):
    done = run(
        '-c',
        'import kd_ext, torch; from mmcv.ops import DeformConv2d\n'
        'DeformConv2d(2, 2, 3)(torch.zeros(1, 2, 9, 9), torch.zeros(1, 18, 7, 7))',
        env=without,
    )
    assert done.returncode == 1
    assert 'NotImplementedError: Expected the operator deform_conv_forward of mmcv to be compiled' in done.stderr
    assert 'KD_EXT_OPS=compiled bash tools/setup.sh' in done.stderr


def test_nothing_where_the_compiled_ones_are():
    compiled()
    assert not any(type(finder).__module__ == 'kd_ext.ops.stand_in' for finder in sys.meta_path)
    done = run(
        '-c', 'import kd_ext, mmcv._ext; print(mmcv._ext.__file__); import sys; print(*map(repr, sys.meta_path))'
    )
    assert '_ext.' in done.stdout.splitlines()[0] and 'stand_in' not in done.stdout


def test_installed_once(without):
    script = 'import sys, kd_ext.patches; kd_ext.patches.install(); print(*map(repr, sys.meta_path))'
    done = run('-c', script, env=without)
    assert done.stdout.count('kd_ext.ops.stand_in') == 1
