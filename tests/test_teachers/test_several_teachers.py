"""Several teachers and several methods in one run."""

import copy

import pytest
import torch
from mmengine.logging import MessageHub
from torch.testing import assert_close

from tests.helpers import tiny_detectors as tiny

ND = dict(type='kd_ext.NDLoss', at='embedding')
TWO = dict(
    teacher=dict(big=tiny.fcos(8, width=24), other=tiny.fcos(6, **{'data_preprocessor.bgr_to_rgb': False})),
    teacher_ckpt=dict(big='random', other='random'),
)


def two(**entries):
    entries = entries or dict(
        rcka=tiny.rcka(teacher='big'), nd_big=dict(ND, teacher='big'), nd_other=dict(ND, teacher='other')
    )
    return tiny.build(dict(type='kd_ext.DetectionDistill', student=tiny.fcos(), distill=entries, **TWO)).train()


def of_one(model, name):
    """Terms of the entries of one teacher, in a model of it alone."""
    entries = {
        entry: dict(cfg)
        for entry, cfg in dict(rcka=tiny.rcka(), nd_big=ND, nd_other=ND).items()
        if model.distiller.teacher_of[entry] == name
    }
    alone = tiny.build(
        dict(type='kd_ext.DetectionDistill', student=tiny.fcos(), teacher=model.teachers[name], distill=entries)
    ).train()
    alone.student.load_state_dict(model.student.state_dict())
    for entry in entries:
        alone.distiller.terms[entry].load_state_dict(model.distiller.terms[entry].state_dict())
    return tiny.losses(alone)


def test_each_entry_is_of_its_teacher():
    model = two()
    losses = tiny.losses(model)
    for name, entries in dict(big=['rcka', 'nd_big'], other=['nd_other']).items():
        wanted = of_one(model, name)
        for entry in entries:
            assert_close(losses[f'distill.loss_{entry}'], wanted[f'distill.loss_{entry}'])


def test_means_are_kept_apart():
    model = two()
    tiny.losses(model)
    means = model.distiller.class_means
    assert set(means) == {'big_regions', 'other_regions'}
    assert means['big_regions'].means.shape[1] == 24
    assert means['other_regions'].means.shape[1] == 16
    assert all(bool(one.counts.any()) for one in means.values())


def test_a_teacher_nobody_asks_does_not_run(monkeypatch):
    hub = MessageHub.get_current_instance()
    monkeypatch.setitem(hub.runtime_info, 'iter', 3)
    model = two(rcka=tiny.rcka(teacher='big'), nd=dict(ND, teacher='other', schedule=dict(begin=10)))
    model.teachers['other'].forward = None  # a call would fail
    model.teachers['other'].extract_feat = None
    assert float(tiny.losses(model)['distill.loss_nd']) == 0


def test_teachers_stay_outside():
    model = two()
    assert set(map(id, model.modules())).isdisjoint(
        id(module) for teacher in model.teachers.values() for module in teacher.modules()
    )
    copied = copy.deepcopy(model)
    assert all(copied.teachers[name] is model.teachers[name] for name in ('big', 'other'))
    model.double()
    assert all(p.dtype == torch.float64 for teacher in model.teachers.values() for p in teacher.parameters())
    assert not any(name.startswith(('big', 'other')) for name in model.state_dict())


def test_each_line_of_the_matches_names_its_teacher():
    lines = two().distiller.matches
    assert all(line.endswith((' of big', ' of other')) for line in lines)


@pytest.mark.parametrize(
    'changes,text',
    [
        (dict(distill=dict(nd=ND)), 'each entry says which one it is of'),
        (dict(distill=dict(nd=dict(ND, teacher='bigg'))), 'Did you mean: big'),
        (dict(teacher_ckpt='random'), 'a path for each of big, other'),
        (dict(teacher_ckpt=dict(big='random')), 'a path for each of big, other'),
        (dict(teacher=tiny.fcos(8)), 'one path, as there is one teacher'),
    ],
)
def test_errors(changes, text):
    with pytest.raises(ValueError, match=text):
        tiny.build(
            {
                **dict(
                    type='kd_ext.DetectionDistill',
                    student=tiny.fcos(),
                    **TWO,
                    distill=dict(nd=dict(ND, teacher='big')),
                ),
                **changes,
            }
        )
