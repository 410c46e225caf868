"""The innermost data sets of a config, with all that their images go through."""

import pytest
from mmengine.config import Config

from kd_ext.data.labelled import LabelledData, class_names
from kd_ext.data.unwrap import unwrap
from tests.helpers import short_trainings as training

ONE, TWO = dict(type='CocoDataset', pipeline=['load']), dict(type='CocoDataset')


@pytest.mark.parametrize('dataset', [None, (), 'CocoDataset', object()])
def test_what_is_no_config_holds_none(dataset):
    assert list(unwrap(dataset)) == []


def test_wrappers_inside_of_wrappers():
    mixed = dict(type='MultiImageMixDataset', dataset=ONE, pipeline=['mosaic', 'flip'])
    joined = dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', dataset=mixed), TWO])
    found = list(unwrap(joined, 'train_dataloader.dataset'))
    assert [part.key for part in found] == [
        'train_dataloader.dataset.datasets.0.dataset.dataset',
        'train_dataloader.dataset.datasets.1',
    ]
    assert found[0].config is ONE and found[1].config is TWO
    assert [part.pipeline for part in found] == [('load', 'mosaic', 'flip'), ()]


def data_of(classes):
    return Config(dict(train_dataloader=dict(dataset=dict(type='CocoDataset', metainfo=dict(classes=classes)))))


def test_a_string_is_no_list_of_classes():
    with pytest.raises(ValueError, match=r"dataset\.metainfo\.classes .*'disk'\. .*classes=\('disk',\)"):
        class_names(data_of('disk'))
    assert class_names(data_of(('disk',))) == ['disk']


def test_a_file_of_class_names(tmp_path):
    path = tmp_path / 'classes.txt'
    path.write_text('disk\nsquare\n')
    assert class_names(data_of(str(path))) == ['disk', 'square']


def test_a_string_is_refused_where_the_data_are_read(shapes, tmp_path):
    cfg = training.config(shapes, tmp_path, 'random')
    cfg.train_dataloader.dataset.metainfo = dict(classes='disk')
    with pytest.raises(ValueError, match=r"classes=\('disk',\)"):
        LabelledData(cfg, 'train')
