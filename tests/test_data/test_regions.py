"""Regions follow from model and image alone, and leave nothing behind."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine import MessageHub

from kd_ext.data.labelled import LabelledData
from kd_ext.data.regions import own_regions, stream_regions, undisturbed
from kd_ext.taps import find_head
from kd_ext.teachers.build import build_teacher
from tests.helpers import detector_zoo as zoo
from tests.helpers import short_trainings as training
from tests.helpers import tiny_detectors as tiny


def sample(name, boxes=3):
    """One image as a pipeline packs it."""
    data = zoo.batch(name, count=1)
    data['data_samples'][0].gt_instances = data['data_samples'][0].gt_instances[:boxes]
    return {key: value[0] for key, value in data.items()}


@pytest.fixture
def faster(shapes, tmp_path):
    model = build_teacher(tiny.faster_rcnn(num_classes=6), 'random')
    data = LabelledData(training.config(shapes, tmp_path, 'random'))
    return model, find_head(model, 'teacher'), data


def same(one, other):
    return all(torch.equal(getattr(one, key), getattr(other, key)) for key in ('embeddings', 'logits', 'labels'))


@pytest.mark.parametrize('name', zoo.CONFIGS)
def test_any_head_gives_the_same_regions_again(name):
    model = build_teacher(zoo.detector(name), 'random')
    head = find_head(model, 'teacher')
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed), np.random.seed(seed)
        found.append(own_regions(model, head, sample(name), 7, model.data_preprocessor))
    assert len(found[0].labels) and same(*found)
    assert not any(module.training for module in model.modules())


def test_neither_order_nor_workers_matter(faster):
    model, head, data = faster
    found = dict(stream_regions(model, head, data, range(8)))
    again = dict(stream_regions(model, head, data, [6, 2, 5], workers=2))
    assert list(again) == [6, 2, 5]
    assert all(same(again[index], found[index]) for index in again)
    assert not same(found[0], own_regions(model, head, data[0], 1, model.data_preprocessor))  # another sample


@pytest.mark.parametrize('workers', [0, 1])
def test_random_states_stay(faster, workers):
    model, head, data = faster

    def states():
        return (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())

    before = states()
    for _ in stream_regions(model, head, data, [1, 2], workers):
        assert states() == before
    assert states() == before


def test_images_without_boxes(faster):
    model, head, data = faster

    class Empty:
        def __getitem__(self, index):
            if index == 1:
                return None
            packed = data[index]
            packed['data_samples'].gt_instances = packed['data_samples'].gt_instances[:0]
            return packed

    found = dict(stream_regions(model, head, Empty(), [0, 1]))
    assert bool((found[0].labels == 6).all()) and len(found[0].labels)
    assert found[1] is None  # the pipeline left it out
    fcos = build_teacher(tiny.fcos(num_classes=6), 'random')
    assert dict(stream_regions(fcos, find_head(fcos, 'teacher'), Empty(), [0])) == {0: None}


def test_losses_do_not_ask_other_processes(faster, monkeypatch):
    fcos, data = build_teacher(tiny.fcos(num_classes=6), 'random'), faster[2]
    asked = torch.distributed.is_initialized

    def refuse(*args, **kwargs):
        raise AssertionError('a collective')

    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'all_reduce', refuse)
    found = own_regions(fcos, find_head(fcos, 'teacher'), data[0], 0, fcos.data_preprocessor)
    assert len(found.labels)
    assert torch.distributed.is_initialized() and not asked()


def test_random_resizing_of_batches_is_left_out(faster):
    model, head, data = faster
    kept = [SimpleNamespace(__call__=None)]
    plain = own_regions(model, head, data[0], 0, model.data_preprocessor)
    model.data_preprocessor.batch_augments = kept
    found = own_regions(model, head, data[0], 0, model.data_preprocessor)
    assert same(plain, found)
    assert model.data_preprocessor.batch_augments is kept


def test_tood_is_past_its_first_epochs():
    hub = MessageHub.get_current_instance()
    hub.runtime_info.pop('epoch', None)
    model = build_teacher(zoo.detector('TOOD'), 'random')
    head = find_head(model, 'teacher')
    preprocess = model.data_preprocessor

    def labels():
        return own_regions(model, head, sample('TOOD'), 0, preprocess).embeddings

    late = labels()
    assert hub.get_info('epoch') is None
    hub.update_info('epoch', 0)
    early = labels()
    hub.update_info('epoch', 11)
    assert torch.equal(labels(), late)
    hub.runtime_info.pop('epoch')
    assert early.shape != late.shape or not torch.equal(early, late)


def test_dynamic_rcnn_keeps_its_thresholds():
    model = build_teacher(zoo.detector('Dynamic R-CNN'), 'random')
    head, roi_head = find_head(model, 'teacher'), model.roi_head
    roi_head.iou_history = [0.3]
    own_regions(model, head, sample('Dynamic R-CNN'), 0, model.data_preprocessor)
    assert roi_head.iou_history == [0.3] and not roi_head.beta_history


def test_undisturbed_restores_modes_and_buffers():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    model.train(), model[1].eval()
    buffer = model[0].running_mean
    with undisturbed(model):
        assert not model[0].training
        model[0].running_mean += 1
        model[0].running_var = torch.zeros(2)
    assert model.training and model[0].training and not model[1].training
    assert model[0].running_mean is buffer and not buffer.any()
    assert model[0].running_var.tolist() == [1, 1]
