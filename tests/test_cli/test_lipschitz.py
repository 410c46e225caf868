"""tools/analysis/lipschitz.py, from the command line to its files."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from kd_ext.cli import lipschitz
from tests.helpers import class_means_by_hand as by_hand
from tests.helpers import short_trainings as training
from tests.helpers import tiny_detectors as tiny
from tests.helpers.data_sets import COCO128

FCOS = tiny.fcos(num_classes=6)
FASTER = tiny.faster_rcnn(8, num_classes=6)
# the first has stages of strides 8, 16, 32, the second from 4 on
STAGES, ALL = (1, 2, 3), (0, 1, 2, 3)


@pytest.fixture
def tool():
    """Calls the tool's ``main``; what it wrote."""

    def call(out, *args):
        lipschitz.main.__wrapped__([*map(str, args), '--out', str(out), '--workers', '0'])
        picture = (out / 'lipschitz.png').read_bytes()
        assert picture.startswith(b'\x89PNG')
        assert 5_000 < len(picture) < 100_000
        return json.loads((out / 'lipschitz.json').read_text())

    return call


@torch.no_grad()
def exact(model, shapes, stages, split='val'):
    """(images, stages - 1) by an SVD of the formed matrices, in float64."""
    rows = []
    for path, _, _ in by_hand.coco_images(shapes, split):
        maps = model.backbone(by_hand.picture(path)[0])
        maps = [maps[stage][0].double() for stage in stages]
        row = []
        for low, high in zip(maps, maps[1:]):
            pooled = F.adaptive_avg_pool2d(low, high.shape[1:])
            matrix = torch.einsum('chw,dhw->cd', pooled, high)
            row.append(torch.linalg.svdvals(matrix / high[0].numel())[0])
        rows.append(torch.stack(row))
    return torch.stack(rows)


def assert_numbers(found, wanted):
    numbers = found['sigma']
    for key, value in (
        ('mean', wanted.mean(0)),
        ('max', wanted.amax(0)),
        ('min', wanted.amin(0)),
        ('std', wanted.std(0, correction=0)),
    ):
        assert_close(torch.tensor(numbers[key], dtype=torch.double), value, rtol=1e-4, atol=1e-5 * float(wanted.max()))


def test_one_model(tool, shapes, tmp_path, capsys):
    files = by_hand.files(tmp_path, shapes, FASTER)
    found = tool(tmp_path / 'out', *files)
    assert (found['split'], found['images'], found['num_iters']) == ('val', 4, 30)
    assert found['relative_gap'] is None
    assert list(found['models']) == ['model']
    model = found['models']['model']
    assert model['strides'] == [4, 8, 16, 32]
    assert model['widths'] == [8, 16, 32, 64]
    assert (model['config'], model['checkpoint']) == ('teacher.py', 'teacher.pth')
    assert_numbers(model, exact(by_hand.load(FASTER, files[1]), shapes, ALL))
    printed = capsys.readouterr().out
    assert '16 -> 32' in printed and 'gap' not in printed
    some = tool(tmp_path / 'some', *files, '--split', 'train', '--max-images', 2, '--levels', 1, 3)
    assert some['images'] == 2
    assert some['models']['model']['strides'] == [8, 32]
    wanted = exact(by_hand.load(FASTER, files[1]), shapes, (1, 3), 'train')
    assert_numbers(some['models']['model'], wanted[[0, 4]])


def test_student_and_teacher(tool, shapes, tmp_path, capsys):
    teacher = by_hand.files(tmp_path, shapes, FASTER)
    student = by_hand.files(tmp_path, shapes, FCOS, 'student')
    cfg = training.config(shapes, tmp_path, str(teacher[1]))
    cfg.model.update(
        teacher=str(teacher[0]), student=FCOS, distill=dict(lipschitz=dict(type='kd_ext.LipschitzLoss', at='backbone'))
    )
    cfg.dump(tmp_path / 'distilling.py')
    both = tool(tmp_path / 'a', tmp_path / 'distilling.py', student[1])
    printed = capsys.readouterr().out
    assert list(both['models']) == ['teacher', 'student']
    # paired by stride: the teacher's first stage has no partner
    for model in both['models'].values():
        assert model['strides'] == [8, 16, 32]
    ours = exact(by_hand.load(FCOS, student[1]), shapes, range(3))
    theirs = exact(by_hand.load(FASTER, teacher[1]), shapes, STAGES)
    assert_numbers(both['models']['student'], ours)
    assert_numbers(both['models']['teacher'], theirs)
    gaps = ((ours - theirs).abs() / (theirs + 1e-6)).mean(0)
    assert_close(torch.tensor(both['relative_gap'], dtype=torch.double), gaps, rtol=1e-3, atol=1e-4)
    assert 'gap' in printed and f'{float(gaps[0]):.1%}' in printed
    named = tool(tmp_path / 'b', *student, '--teacher', *teacher)
    assert without_names(named) == without_names(both)
    # levels of the training, where its config names them
    cfg.model.distill.lipschitz.levels = ((0, 1), (2, 3))
    cfg.dump(tmp_path / 'named.py')
    chosen = tool(tmp_path / 'c', tmp_path / 'named.py', student[1])
    again = tool(tmp_path / 'd', *student, '--teacher', *teacher, '--levels', '0:1', '2:3')
    assert without_names(again) == without_names(chosen)
    assert chosen['models']['teacher']['strides'] == [8, 32]


def without_names(found):
    return [found['relative_gap'], *({**model, 'config': None} for model in found['models'].values())]


def test_a_model_beside_itself(tool, shapes, tmp_path):
    files = by_hand.files(tmp_path, shapes, FCOS)
    found = tool(tmp_path, *files, '--teacher', *files)
    assert found['relative_gap'] == [0.0, 0.0]
    assert found['models']['teacher'] == found['models']['student']


def test_errors(tool, shapes, tmp_path):
    files = by_hand.files(tmp_path, shapes, FCOS)
    fine = tiny.faster_rcnn(num_classes=6)
    fine.backbone.out_indices = (0, 1)
    fine.neck.in_channels = fine.neck.in_channels[:2]
    other = by_hand.files(tmp_path, shapes, fine, 'fine')
    with pytest.raises(ValueError, match='(?s)stride 8, stride 16, stride 32.*--levels 0:1 1:2'):
        tool(tmp_path, *files, '--teacher', *other)
    with pytest.raises(FileNotFoundError, match='checkpoint of the teacher'):
        tool(tmp_path, *files, '--teacher', files[0], tmp_path / 'none.pth')
    with pytest.raises(ValueError, match=r'within 0\.\.2.*but got \(0, 9\)'):
        tool(tmp_path, *files, '--levels', 0, 9)
    state = torch.load(files[1])
    for value, text in (
        (float('nan'), 'to be of finite weights'),
        (3e38, r'sigmas of the model to be finite, but got .*\.(png|jpg)'),
    ):
        state['state_dict']['backbone.layer3.0.conv1.weight'][0] = value
        torch.save(state, tmp_path / 'broken.pth')
        with pytest.raises(ValueError, match=text):
            tool(tmp_path, files[0], tmp_path / 'broken.pth')
    for wrong in (('--max-images', 0), ('--iterations', 0), ('--levels', 'a'), ('--levels', '0:1:2')):
        with pytest.raises(SystemExit):
            tool(tmp_path, *files, *wrong)


def test_help(tool, tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        tool(tmp_path, '--help')
    assert done.value.code == 0
    printed = capsys.readouterr().out
    for option in ('CONFIG CHECKPOINT', '--teacher', '--out', '--max-images', '--split', '--iterations', '--levels'):
        assert option in printed


def test_segmentors(tool, tmp_path):
    pytest.importorskip('mmseg', reason='segmentation is an extra')
    images = COCO128 / 'val2017'
    if not images.exists():
        pytest.skip('KD_EXT_TEST_DATA names no folder with COCO128')
    from tests.helpers import tiny_segmentors as tiny_seg

    files = []
    for name, base in (('teacher', 8), ('student', 4)):
        cfg = tiny_seg.config('deeplabv3plus_r18_voc12aug.py')
        cfg.model = tiny_seg.segmentor('deeplabv3plus_r18_voc12aug.py', base)
        cfg.test_pipeline[1].scale = (96, 64)
        cfg.val_dataloader.dataset = dict(
            type='BaseSegDataset',
            data_root=str(images),
            indices=3,
            data_prefix=dict(img_path=''),
            img_suffix='.jpg',
            metainfo=dict(classes=('one', 'two')),
            pipeline=cfg.test_pipeline,
        )
        cfg.dump(tmp_path / f'{name}.py')
        torch.save(dict(state_dict=tiny_seg.build(cfg.model).state_dict()), tmp_path / f'{name}.pth')
        files.append((tmp_path / f'{name}.py', tmp_path / f'{name}.pth'))
    found = tool(tmp_path, *files[1], '--teacher', *files[0])
    assert found['images'] == 3
    widths = [model['widths'] for model in found['models'].values()]
    assert widths == [[8, 16, 32, 64], [4, 8, 16, 32]]
    assert all(0 < gap < 1e3 for gap in found['relative_gap'])
