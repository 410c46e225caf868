"""tools/analysis/neural_collapse.py, from the command line to its files."""

import json

import pytest
import torch

from kd_ext.analysis.neural_collapse import measure
from kd_ext.class_means.moments import Moments
from kd_ext.cli import neural_collapse
from tests.helpers import class_means_by_hand as by_hand
from tests.helpers import short_trainings as training
from tests.helpers import tiny_detectors as tiny

FCOS, FASTER = tiny.fcos(num_classes=6), tiny.faster_rcnn(num_classes=6)


@pytest.fixture
def tool():
    """Calls the tool's ``main``; what it wrote."""

    def call(out, *args):
        neural_collapse.main.__wrapped__([*map(str, args), '--out', str(out), '--workers', '0'])
        picture = (out / 'neural_collapse.png').read_bytes()
        assert picture.startswith(b'\x89PNG') and len(picture) > 10_000
        return json.loads((out / 'neural_collapse.json').read_text())

    return call


def roi_measures(model, shapes, rows, indices=range(8)):
    """By hand, on training images."""
    moments = Moments(rows, 32)
    for index, (path, boxes, labels) in enumerate(by_hand.coco_images(shapes)):
        if index in indices:
            inputs, size, _ = by_hand.picture(path)
            moments.add(*by_hand.roi_regions(model, inputs, size, boxes, labels, index))
    return measure(
        moments, model.roi_head.bbox_head.fc_cls.weight, ['disk', 'square', 'triangle', 'star', 'ring', 'cross']
    )


def test_one_detector(tool, shapes, tmp_path, capsys):
    files = by_hand.files(tmp_path, shapes, FASTER)
    found = tool(tmp_path / 'out', *files, '--split', 'train')
    assert (found['split'], found['images'], found['background']) == ('train', 8, False)
    assert list(found['models']) == ['model']
    numbers = found['models']['model']
    expected = roi_measures(by_hand.load(FASTER, files[1]), shapes, 6)
    assert numbers['class_names'] == expected.classes
    assert numbers['counts'] == expected.counts.tolist()
    for key in ('nc1', 'nc2', 'nc3'):
        assert numbers[key] == pytest.approx(getattr(expected, key), rel=1e-3)
    torch.testing.assert_close(
        torch.tensor(numbers['cosines'], dtype=torch.double), expected.cosines, rtol=1e-3, atol=1e-4
    )
    assert (numbers['config'], numbers['checkpoint'], numbers['width']) == ('teacher.py', 'teacher.pth', 32)
    printed = capsys.readouterr().out
    assert 'NC1' in printed and 'triangle' in printed and 'wrote' in printed


def test_background_and_fewer_images(tool, shapes, tmp_path):
    files = by_hand.files(tmp_path, shapes, FASTER)
    found = tool(tmp_path / 'out', *files, '--split', 'train', '--background', '--max-images', 4)
    numbers = found['models']['model']
    expected = roi_measures(by_hand.load(FASTER, files[1]), shapes, 7, (0, 2, 4, 6))
    assert numbers['class_names'][-1] == 'background'
    assert numbers['class_names'] == expected.classes
    assert numbers['nc1'] == pytest.approx(expected.nc1, rel=1e-3)


def test_student_and_teacher(tool, shapes, tmp_path):
    teacher = by_hand.files(tmp_path, shapes, FASTER)
    student = by_hand.files(tmp_path, shapes, FCOS, 'student')
    cfg = training.config(shapes, tmp_path, str(teacher[1]))
    cfg.model.teacher, cfg.model.student = str(teacher[0]), FCOS
    cfg.dump(tmp_path / 'distilling.py')
    split = ('--split', 'train')
    both = tool(tmp_path / 'a', tmp_path / 'distilling.py', student[1], *split)['models']
    assert list(both) == ['teacher', 'student']
    assert both['teacher']['config'] == 'teacher.py'
    named = tool(tmp_path / 'b', *student, '--teacher', *teacher, *split)['models']
    alone = tool(tmp_path / 'c', *teacher, *split)['models']
    other = tool(tmp_path / 'd', tmp_path / 'distilling.py', student[1], '--teacher', *student, *split)['models']
    # the same numbers, whichever way a model is named
    for one, again in (
        (both['teacher'], named['teacher']),
        (both['teacher'], alone['model']),
        (both['student'], named['student']),
        (both['student'], other['teacher']),
    ):
        assert {**one, 'config': None} == {**again, 'config': None}


def test_errors(tool, shapes, tmp_path):
    files = by_hand.files(tmp_path, shapes, FCOS)
    with pytest.raises(FileNotFoundError, match='checkpoint of the teacher'):
        tool(tmp_path, *files, '--teacher', files[0], tmp_path / 'none.pth')
    with pytest.raises(ValueError, match='at least 2, but got [01]'):
        tool(tmp_path, *files, '--min-regions', 100)
    with pytest.raises(SystemExit):
        tool(tmp_path, *files, '--max-images', 0)
