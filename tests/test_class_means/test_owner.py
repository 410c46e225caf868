"""Class means belong to a teacher: a file of another one is refused, whatever its width."""

import copy
import json

import pytest
import torch
from mmengine.logging import MMLogger

from kd_ext.class_means.stored import ClassMeans, load_class_means, save_class_means
from kd_ext.teachers.identity import PREFIX, checkpoint_digest, weights_digest
from tests.helpers.tiny_detectors import build, distill, fcos

ND = dict(type='kd_ext.NDLoss', at='embedding')
NAMES = ['cat', 'dog', 'cow']


@pytest.fixture
def warnings(monkeypatch):
    """What is logged as a warning."""
    seen = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'log', lambda level, text: level >= 30 and seen.append(text))
    return seen


def checkpoint(folder, name, seed=0):
    model = build(fcos(8), seed=seed)
    state = dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=NAMES)))
    torch.save(state, folder / name)
    return str(folder / name), model


def means(folder, path, model, name='means.pth', classes=NAMES, rows=None, weights=True):
    """A file as tools/class_means.py writes it; with ``weights`` False as it did before."""
    info = dict(checkpoint=path.rpartition('/')[2], checkpoint_sha256=checkpoint_digest(path, model)[:PREFIX])
    if weights:
        info['weights_sha256'] = weights_digest(model)[:PREFIX]
    save_class_means(folder / name, ClassMeans(torch.rand(3, 16) if rows is None else rows, None, classes, info))
    return str(folder / name)


def entry(file, **changes):
    return dict(nd=dict(ND, class_means=file, **changes))


def test_own_teacher_by_path_by_url_and_as_a_model(tmp_path, warnings, monkeypatch):
    path, model = checkpoint(tmp_path, 'own.pth')
    file, older = means(tmp_path, path, model), means(tmp_path, path, model, 'older.pth', weights=False)
    for one in (file, older):
        distill(teacher_ckpt=path, **entry(one))
    distill(teacher=model, teacher_ckpt=None, **entry(file))
    # the same weights in another file, and a URL of the cached file
    torch.save(torch.load(path)['state_dict'], tmp_path / 'stripped.pth')
    distill(teacher_ckpt=str(tmp_path / 'stripped.pth'), **entry(file))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    (tmp_path / 'hub/checkpoints/own.pth').write_bytes((tmp_path / 'own.pth').read_bytes())
    distill(teacher_ckpt='https://download.openmmlab.com/x/own.pth', **entry(older))
    assert not warnings
    # a file of before and a model without a file: nothing to compare
    distill(teacher=model, teacher_ckpt=None, **entry(older))
    assert len(warnings) == 1 and 'own.pth' in warnings[0] and 'FCOS without a checkpoint' in warnings[0]


@pytest.mark.parametrize('weights', [True, False])
def test_another_teacher_is_refused(tmp_path, warnings, weights):
    path, model = checkpoint(tmp_path, 'own.pth')
    other, _ = checkpoint(tmp_path, 'other.pth', seed=1)
    file = means(tmp_path, path, model, weights=weights)
    with pytest.raises(ValueError, match=r'nd\.class_means.*other\.pth.*own\.pth.*CONFIG \S*other\.pth'):
        distill(teacher_ckpt=other, **entry(file))
    assert not warnings
    distill(teacher_ckpt=other, **entry(file, allow_class_means_mismatch=True))
    assert len(warnings) == 1 and 'own.pth' in warnings[0] and 'other.pth' in warnings[0]


def test_another_teacher_as_a_model_is_refused(tmp_path):
    path, model = checkpoint(tmp_path, 'own.pth')
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.bbox_head.conv_cls.bias += 1
    with pytest.raises(ValueError, match='allow_class_means_mismatch=True'):
        distill(teacher=other, teacher_ckpt=None, **entry(means(tmp_path, path, model)))


def test_imported_json_warns_with_both_names(tmp_path, warnings):
    path, _ = checkpoint(tmp_path, 'own.pth')
    (tmp_path / 'cls_means_r101.json').write_text(json.dumps({str(k): [1.0 + k] * 16 for k in range(3)}))
    distill(teacher_ckpt=path, **entry(str(tmp_path / 'cls_means_r101.json')))
    assert len(warnings) == 1 and 'cls_means_r101.json' in warnings[0] and 'own.pth' in warnings[0]


@pytest.mark.parametrize('changes', [dict(allow_class_means_mismatch=1), dict(allow_class_means_mismatch='no')])
def test_the_option_is_a_bool(tmp_path, changes):
    path, model = checkpoint(tmp_path, 'own.pth')
    with pytest.raises(ValueError, match='allow_class_means_mismatch'):
        distill(teacher_ckpt=path, **entry(means(tmp_path, path, model), **changes))
    with pytest.raises(ValueError, match='allow_class_means_mismatch'):
        distill(teacher_ckpt=path, nd=dict(ND, allow_class_means_mismatch=True))


def test_another_class_order(tmp_path):
    path, model = checkpoint(tmp_path, 'own.pth')
    file = means(tmp_path, path, model, classes=['dog', 'Cat', 'cow'])
    with pytest.raises(ValueError, match=r"order of the teacher's classes \(cat, dog.*classes=dict\(student"):
        distill(teacher_ckpt=path, **entry(file))
    # names of a student's own data set are no order of the teacher's
    distill(teacher_ckpt=path, **entry(means(tmp_path, path, model, classes=['a', 'b', 'c'])))


@pytest.mark.parametrize(
    'rows,text', [(torch.zeros(3, 16), 'nothing but zeros'), (torch.full((3, 16), float('nan')), 'inf or NaN')]
)
def test_means_of_no_use(tmp_path, rows, text):
    path, model = checkpoint(tmp_path, 'own.pth')
    with pytest.raises(ValueError, match=f'class_means in .*means.pth.*{text}.*tools/class_means.py'):
        distill(teacher_ckpt=path, **entry(means(tmp_path, path, model, rows=rows)))


def test_half_written(tmp_path):
    path, model = checkpoint(tmp_path, 'own.pth')
    file = means(tmp_path, path, model)
    content = (tmp_path / 'means.pth').read_bytes()
    (tmp_path / 'means.pth').write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match='class_means to be a file of tools'):
        distill(teacher_ckpt=path, **entry(file))
    with pytest.raises(ValueError, match='5 rows for 3 classes'):
        load_class_means(means(tmp_path, path, model, rows=torch.rand(5, 16)))
