"""Every checkpoint is a plain student, and resuming restores the rest."""

import textwrap

import pytest
import torch

from tests.helpers.fresh_processes import fresh
from tests.helpers.short_trainings import STUDENT, command, config, save_teacher, train
from tests.helpers.tiny_detectors import batch, build
from tests.helpers.without_ops import compiled


@pytest.fixture(scope='module')
def teacher_ckpt(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp('teacher'))


@pytest.fixture(scope='module')
def trained(shapes, teacher_ckpt, tmp_path_factory):
    """Two epochs with best and EMA checkpoints."""
    work_dir = tmp_path_factory.mktemp('ema')
    cfg = config(
        shapes,
        work_dir,
        teacher_ckpt,
        **{'default_hooks.checkpoint.save_best': 'coco/bbox_mAP', 'default_hooks.checkpoint.rule': 'greater'},
    )
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.2)]
    return train(cfg), work_dir


def predictions(model):
    model.eval()
    data = model.data_preprocessor(batch((64, 64), num_classes=6), False)
    with torch.no_grad():
        results = model(**data, mode='predict')
    return [result.pred_instances.bboxes for result in results]


def test_every_file_is_a_plain_student(trained):
    runner, work_dir = trained
    files = sorted(work_dir.glob('*.pth'))
    assert {f.name for f in files} >= {'epoch_1.pth', 'epoch_2.pth'}
    assert any(f.name.startswith('best') for f in files)
    for path in files:
        plain = build(STUDENT, seed=5)
        result = plain.load_state_dict(torch.load(path)['state_dict'])
        assert not result.missing_keys and not result.unexpected_keys


def test_plain_student_predicts_the_same_boxes(shapes, teacher_ckpt, tmp_path):
    runner = train(config(shapes, tmp_path, teacher_ckpt, epochs=1))
    plain = build(STUDENT, seed=5)
    plain.load_state_dict(torch.load(tmp_path / 'epoch_1.pth')['state_dict'])
    for one, two in zip(predictions(runner.model), predictions(plain)):
        assert torch.equal(one, two)


def test_stock_mmdet_reads_it_without_kd_ext(trained, tmp_path):
    compiled()  # else mmdet does not import without kd_ext
    _, work_dir = trained
    student = tmp_path / 'student.py'
    from mmengine.config import Config

    Config(dict(model=STUDENT)).dump(student)
    script = textwrap.dedent(f"""
        import sys
        import torch
        from mmengine.config import Config
        from mmengine.registry import init_default_scope
        from mmdet.registry import MODELS
        init_default_scope('mmdet')
        model = MODELS.build(Config.fromfile({str(student)!r}).model)
        state = torch.load({str(work_dir / 'epoch_2.pth')!r},
                           weights_only=False)['state_dict']
        print(model.load_state_dict(state))
        assert not any(name.partition('.')[0] == 'kd_ext' for name in sys.modules)
    """)
    assert 'All keys matched' in fresh(script)


@pytest.mark.parametrize('ema', [False, True])
def test_resumed_equals_uninterrupted(shapes, teacher_ckpt, tmp_path, ema):
    hooks = [dict(type='EMAHook', momentum=0.2)] if ema else []
    configs = [config(shapes, tmp_path / name, teacher_ckpt, custom_hooks=hooks) for name in ('whole', 'parts')]
    train(configs[0])
    configs[1].merge_from_dict(dict(resume=True, load_from=str(tmp_path / 'whole/epoch_1.pth')))
    configs[1].experiment_name += '_again'
    train(configs[1])
    whole, parts = (torch.load(tmp_path / name / 'epoch_2.pth') for name in ('whole', 'parts'))
    projectors = whole['state_dict']._metadata['']['kd_ext']
    again = parts['state_dict']._metadata['']['kd_ext']
    assert len(projectors) == 6
    for one, two in ((whole['state_dict'], parts['state_dict']), (projectors, again)):
        assert one.keys() == two.keys()
        for key in one:
            torch.testing.assert_close(one[key], two[key], rtol=0, atol=0)


def test_fine_tuning_from_a_plain_student(shapes, teacher_ckpt, tmp_path):
    plain = build(STUDENT, seed=9)
    torch.save(dict(state_dict=plain.state_dict()), tmp_path / 'plain.pth')
    cfg = config(shapes, tmp_path / 'work', teacher_ckpt, epochs=1, load_from=str(tmp_path / 'plain.pth'))
    from mmengine.runner import Runner

    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    for key, value in plain.state_dict().items():
        assert torch.equal(runner.model.student.state_dict()[key], value)


@pytest.mark.parametrize('scope', ['mmdet', 'mmrazor', 'kd_ext'])
def test_trains_under_every_default_scope(shapes, teacher_ckpt, tmp_path, scope):
    cfg = config(shapes, tmp_path, teacher_ckpt, epochs=1, default_scope=scope)
    cfg.dump(tmp_path / 'config.py')
    result = command('tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'work')
    assert result.returncode == 0, result.stdout[-3000:]
    assert (tmp_path / 'work' / 'epoch_1.pth').exists()


def test_mmdets_own_train_script(shapes, teacher_ckpt, tmp_path):
    compiled()  # else mmdet does not import without kd_ext
    from pathlib import Path

    import mmdet

    tool = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'
    cfg = config(shapes, tmp_path, teacher_ckpt, epochs=1)
    cfg.dump(tmp_path / 'config.py')
    result = command(tool, tmp_path / 'config.py', '--work-dir', tmp_path / 'work')
    assert result.returncode == 0, result.stdout[-3000:]
    again = command(
        tool,
        tmp_path / 'config.py',
        '--work-dir',
        tmp_path / 'work',
        '--resume',
        '--cfg-options',
        'train_cfg.max_epochs=2',
    )
    assert again.returncode == 0, again.stdout[-3000:]
    assert (tmp_path / 'work' / 'epoch_2.pth').exists()
