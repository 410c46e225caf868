"""The published student in stock programs, in processes that cannot import kd_ext."""

from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmengine.config import Config

from kd_ext.cli.runner import build_runner
from kd_ext.engine.interruption import Interruption, train
from kd_ext.engine.publish_hook import plain_config, publish
from tests.helpers import fresh_processes
from tests.helpers.short_trainings import STUDENT, config, save_teacher

NO_KD_EXT = "import sys; sys.modules['kd_ext'] = None\n"
STOCK_TEST = Path(mmdet.__file__).parent / '.mim/tools/test.py'


def stock(folder, script, *args):
    """Runs a script where kd_ext cannot be imported: stdout and stderr."""
    done = fresh_processes.run('-c', NO_KD_EXT + script, *args, cwd=folder, one_stream=True)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """The work dir of a distilled training of one epoch, and the last lines of its log."""
    folder = tmp_path_factory.mktemp('published')
    cfg = config(
        shapes,
        folder / 'work',
        save_teacher(folder),
        1,
        log_level='INFO',
        **{
            'default_hooks.checkpoint.save_best': 'coco/bbox_mAP',
            # a best checkpoint needs a score, and a score detections, also of a student of one epoch
            'model.student.test_cfg.score_thr': 0.0,
            'randomness.seed': 0,
        },
    )
    cfg.launcher = 'none'
    cfg.custom_imports = dict(imports=['kd_ext.engine.amp'])
    runner = build_runner(cfg)
    train(runner, Interruption())
    return folder / 'work'


def test_last_lines_of_the_log(trained):
    (log,) = trained.glob('*/*.log')
    lines = log.read_text().rstrip().splitlines()[-5:]
    assert 'The student alone' in lines[0]
    names = [Path(line.strip()).name for line in lines[1:3]]
    assert names == ['student_epoch_1.pth', 'student_best_coco_bbox_mAP_epoch_1.pth']
    assert f'tools/test.py {trained}/student.py' in lines[3]
    assert 'DetInferencer(weights=' in lines[4]


def test_holds_weights_and_plain_values_alone(trained):
    content = torch.load(trained / 'student_epoch_1.pth', weights_only=True)
    whole = torch.load(trained / 'epoch_1.pth')['state_dict']
    assert set(content) == {'meta', 'state_dict'} and set(content['meta']) == {'dataset_meta', 'epoch', 'iter', 'cfg'}
    assert list(content['state_dict']) == list(whole)
    assert all(torch.equal(value, whole[name]) for name, value in content['state_dict'].items())
    assert 'kd_ext' not in content['meta']['cfg']
    versions = content['state_dict']._metadata
    assert versions['backbone.bn1'] == whole._metadata['backbone.bn1'] == dict(version=2)
    assert all(set(one) == {'version'} for one in versions.values())


@pytest.mark.slow
def test_in_stock_programs(trained, shapes):
    image = sorted((shapes / 'VOC2007/JPEGImages').iterdir())[0]
    path = trained / 'student_best_coco_bbox_mAP_epoch_1.pth'
    text = stock(
        trained,
        'from mmdet.apis import DetInferencer\n'
        f'found = DetInferencer(weights={str(path)!r}, device="cpu")({str(image)!r})\n'
        "print(len(found['predictions'][0]['scores']), 'scores')",
    )
    assert text.rstrip().endswith(' scores')
    run_test = f'import runpy; runpy.run_path({str(STOCK_TEST)!r}, run_name="__main__")'
    assert 'bbox_mAP' in stock(trained, run_test, trained / 'student.py', path, '--work-dir', trained / 'test')
    # the checkpoint itself is what they refuse, on torch >= 2.6
    if torch.__version__ >= (2, 6):
        with pytest.raises(AssertionError, match='(?s)HistoryBuffer'):
            stock(trained, run_test, trained / 'student.py', trained / 'epoch_1.pth', '--work-dir', trained / 'test')


def test_meta_of_other_types(tmp_path):
    meta = dict(dataset_meta=dict(classes=('a', 'b'), palette=np.array([[1, 2, 3]])), epoch=np.int64(2), x=object)
    torch.save(dict(state_dict={'a': torch.ones(1)}, meta=dict(meta, x=0)), tmp_path / 'last.pth')
    content = torch.load(publish(str(tmp_path / 'last.pth')), weights_only=True)
    assert content['meta'] == dict(dataset_meta=dict(classes=['a', 'b'], palette=[[1, 2, 3]]), epoch=2, iter=None)


def test_plain_config(shapes, tmp_path):
    cfg = config(shapes, tmp_path, 'random', load_from='x.pth', resume=True)
    cfg.custom_imports = dict(imports=['kd_ext.engine.amp', 'json'])
    cfg.custom_hooks = [dict(type='kd_ext.ExactResumeHook'), dict(type='EMAHook')]
    plain = Config.fromstring(plain_config(cfg), '.py')
    assert plain.model.type == STUDENT['type'] and 'kd_ext' not in plain.pretty_text
    assert plain.custom_imports == dict(imports=['json'])
    assert plain.custom_hooks == [dict(type='EMAHook')]
    assert plain.load_from is None and not plain.resume
    assert cfg.load_from == 'x.pth' and len(cfg.custom_hooks) == 2
    assert plain_config(Config(dict(work_dir='x'))) == ''
    cfg.model.student = torch.nn.Linear(1, 1)
    assert plain_config(cfg) == ''
