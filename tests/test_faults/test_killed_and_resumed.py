"""Killed at any moment and resumed: the weights of an unbroken training."""

import random
from copy import deepcopy

import pytest
import torch

from tests.helpers import tiny_detectors as tiny
from tests.helpers.killable_trainings import KILLED, apart, go_on
from tests.helpers.short_trainings import CLASSES, TEACHER, config

EPOCH, EPOCHS = 4, 3  # iterations; epochs
# every method that keeps a state, every schedule, and a balance
ENTRIES = dict(
    rcka=tiny.rcka(balance=0.2),
    nd=dict(type='kd_ext.NDLoss', at='embedding', schedule=dict(warmup=7)),
    nckd=dict(type='kd_ext.NCKDLoss', at='embedding', loss_weight=0.1, schedule=dict(begin=2, decay='cosine', end=11)),
    kl=dict(type='kd_ext.LogitKLLoss', at='logits', schedule=dict(end=1.5, by_epoch=True)),
    review=dict(
        type='kd_ext.ReviewKDLoss', at='neck', balance=0.1, schedule=dict(decay='linear', end=2.5, by_epoch=True)
    ),
    lipschitz=dict(
        type='kd_ext.LipschitzLoss',
        at='pre_relu',
        relative=True,
        connector=dict(type='kd_ext.ConvBNConnector'),
        loss_weight=0.1,
    ),
    ofd=dict(
        type='mmrazor.OFDLoss',
        at='pre_relu',
        connector='lipschitz',
        teacher_connector=dict(type='kd_ext.RunningMarginConnector'),
        mul_factor=0.01,
    ),
    pkd=dict(type='mmrazor.PKDLoss', at='neck'),
    cwd=dict(type='mmrazor.ChannelWiseDivergence', at='neck'),
)


def save_teacher(folder):
    """Weights of a teacher whose blocks do more than pass on: path."""
    teacher = tiny.build(TEACHER)
    for module in teacher.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0.0, 0.3)
    torch.save(dict(state_dict=teacher.state_dict()), folder / 'teacher.pth')
    return str(folder / 'teacher.pth')


def write(folder, shapes, name, **changes):
    """The config of a run in ``folder/name``: its path."""
    changes = {
        'train_dataloader.batch_size': 2,
        'val_cfg': None,
        'val_dataloader': None,
        'val_evaluator': None,
        'randomness': dict(seed=3),
        **changes,
    }
    cfg = config(shapes, folder / name, str(folder / 'teacher.pth'), EPOCHS)
    cfg.model.distill = deepcopy(ENTRIES)
    cfg.merge_from_dict(changes)
    path = folder / f'{name}.py'
    cfg.dump(path)
    return path


def state(folder, last):
    """All of a checkpoint that training goes on from, by name."""
    content = torch.load(folder / last)
    found = {f'student {key}': value for key, value in content['state_dict'].items()}
    own = content['state_dict']._metadata['']['kd_ext']
    found.update({f'distiller {key}': value for key, value in own.items()})
    for index, values in content['optimizer']['state'].items():
        found.update(
            {f'optimizer {index} {key}': torch.as_tensor(value) for key, value in values.items() if value is not None}
        )
    found.update({f'ema {key}': value for key, value in content.get('ema_state_dict', {}).items()})
    found['iter'] = torch.tensor(content['meta']['iter'])
    return found


def check_equal(one, two):
    assert one.keys() == two.keys()
    assert not [key for key in one if not torch.equal(one[key], two[key])]


def killed(path, count, seed):
    """Kills a training ``count`` times, each time further on; ends it.

    The last time there is a checkpoint to go on from.
    """
    draw = random.Random(seed)
    moments = [draw.randrange(EPOCH + 1, EPOCH * EPOCHS - 2) for _ in range(count)]
    moments[:-1] = [draw.randrange(1, last) for last in moments[:-1]]
    for moment in sorted(moments):
        status, text = apart(go_on, path, moment, draw.uniform(0, 0.3))
        assert status == KILLED, text
    status, text = apart(go_on, path)
    assert status == 0, text


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('killed')
    save_teacher(folder)
    return folder


@pytest.fixture(scope='module')
def whole(folder, shapes):
    """The state that an unbroken training ends with."""
    killed(write(folder, shapes, 'whole'), 0, 0)
    return state(folder / 'whole', f'epoch_{EPOCHS}.pth')


def test_what_is_kept(whole):
    words = ('class_means', 'counts', 'student_means', 'means', 'steps', 'connectors', 'margin', 'square', 'loss.')
    for word in words:
        keys = [key for key in whole if key.startswith('distiller ') and word in key]
        assert keys, word
        assert any(bool(whole[key].any()) for key in keys), word


@pytest.mark.slow
@pytest.mark.parametrize('seed', [3, 4])
def test_all_methods(folder, shapes, whole, seed):
    path = write(folder, shapes, f'parts{seed}')
    killed(path, 2, seed)
    check_equal(whole, state(folder / f'parts{seed}', f'epoch_{EPOCHS}.pth'))


def faster_rcnn(*args):
    """It samples regions at random."""
    return dict(tiny.faster_rcnn(*args, num_classes=CLASSES), _delete_=True)


RANDOM = {  # in the model and in the images
    'model.student': faster_rcnn(),
    'model.teacher': faster_rcnn(8, 24),
    'model.teacher_ckpt': 'random',
    'train_dataloader.dataset.pipeline.2.prob': 0.5,
}
BY_ITERATION = dict(
    train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=10),
    param_scheduler=[dict(type='LinearLR', start_factor=0.1, end=7, by_epoch=False)],
)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['by_epoch_workers_ema', 'by_iteration'])
def test_random_numbers(folder, shapes, name):
    changes = dict(RANDOM, custom_hooks=[dict(type='kd_ext.ExactResumeHook')])
    if 'ema' in name:
        changes['custom_hooks'] += [dict(type='EMAHook', momentum=0.2)]
    if 'workers' in name:
        changes['train_dataloader.num_workers'] = 2
    if 'by_iteration' in name:
        changes.update(BY_ITERATION)
        changes.update(
            {
                'train_dataloader.sampler.type': 'InfiniteSampler',
                'default_hooks.checkpoint.by_epoch': False,
                'default_hooks.checkpoint.interval': 3,
            }
        )
    last = 'iter_10.pth' if 'by_iteration' in name else 'epoch_3.pth'
    ends = []
    for run, times in (('whole', 0), ('parts', 1)):
        path = write(folder, shapes, f'{name}_{run}', **deepcopy(changes))
        killed(path, times, name)
        ends.append(state(folder / f'{name}_{run}', last))
    check_equal(*ends)
