"""Reports on short trainings: the hook, the tool, the page in a real browser, and inputs that are damaged."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO

from kd_ext.cli import command
from kd_ext.report.gather import Asked
from kd_ext.report.write import write_report
from tests.helpers import short_trainings as training
from tests.helpers.browser import Browser, find_browser

SIZES = [('light', 1280, False), ('dark', 1280, True), ('phone', 360, False)]
HOOK = dict(type='kd_ext.ReportHook', max_images=3)
pytestmark = pytest.mark.slow  # the trainings of the fixture


def edited(folder, old, new):
    (path,) = folder.glob('*/vis_data/config.py')
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return folder


@pytest.fixture(scope='module')
def runs(shapes, tmp_path_factory):
    """Work dirs of two seeds, alone and distilled, where the first distilled one reports; and its runner."""
    folder = tmp_path_factory.mktemp('runs')
    teacher = training.save_teacher(folder)
    for role in ('alone', 'distilled'):
        cfg = training.config(shapes, folder / f'{role}_0', teacher, **{'randomness.seed': 0})
        cfg.custom_hooks = [dict(HOOK, alone=[str(folder / 'alone_0')])] if role == 'distilled' else []
        cfg.log_level, cfg.default_hooks.logger.interval = 'INFO', 1
        if role == 'alone':
            cfg.model = training.STUDENT
        runner = training.train(cfg)
        # a second seed: as if the first epoch were the last one of another training
        other = Path(shutil.copytree(folder / f'{role}_0', folder / f'{role}_1'))
        (other / 'last_checkpoint').write_text('epoch_1.pth')
        edited(other, 'seed=0', 'seed=1')
    return folder, runner


@pytest.fixture(scope='module')
def report(runs):
    """The page, the figures and the predictions of all runs: folder."""
    folder, out = runs[0], runs[0] / 'out'
    out.mkdir()
    arguments = [folder / 'distilled_0', folder / 'distilled_1', '--alone', folder / 'alone_0', folder / 'alone_1']
    arguments += ['--out', out / 'report.html', '--json', out / 'report.json', '--predictions', out / 'predictions']
    command.main(['report', *map(str, arguments)])
    return out


def scalars(folder):
    (path,) = folder.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_figures_while_training(runs):
    folder, _ = runs
    rows = [row for row in scalars(folder / 'distilled_0') if 'coco/bbox_mAP' in row]
    assert len(rows) == 2
    for row in rows:
        assert {'report/error_missed', 'report/error_class', 'report/cka_rcka_neck[0]'} <= set(row)
        assert 0 <= row['report/cka_rcka_neck[0]'] <= 1
        values = [value for key, value in row.items() if key.startswith('report/AP_')]
        # COCO's own mean is over classes with objects, in thousandths
        assert sum(values) / len(values) == pytest.approx(100 * row['coco/bbox_mAP'], abs=0.06)
    assert not any(key.startswith('report/') for row in scalars(folder / 'alone_0') for key in row)


def test_the_training_is_as_without_the_hook(runs, shapes, tmp_path):
    folder, runner = runs
    cfg = training.config(shapes, tmp_path, str(folder / 'teacher.pth'), **{'randomness.seed': 0})
    state = training.train(cfg).model.state_dict()
    known = runner.model.state_dict()
    assert all(torch.equal(value, known[key]) for key, value in state.items())


def test_the_hook_writes_a_page_at_the_end(runs):
    folder, _ = runs
    text = (folder / 'distilled_0/report.html').read_text()
    assert 'Precision by class and size' in text and 'distilled, seed 0' in text and 'alone, seed 0' in text
    log = next((folder / 'distilled_0').glob('*/*.log')).read_text()
    assert 'Report: ' in log and 'mAP against' in log


def test_figures_are_those_of_the_log(report, runs):
    content = json.loads((report / 'report.json').read_text())
    for role in ('alone', 'distilled'):
        logged = [row['coco/bbox_mAP'] for row in scalars(runs[0] / f'{role}_0') if 'coco/bbox_mAP' in row]
        for seed, value in ((0, logged[1]), (1, logged[0])):
            assert content['precision'][f'{role}, seed {seed}']['mAP'] == pytest.approx(100 * value, abs=0.06)
    assert content['differences']['seeds'] == [0, 1] and 'low' in content['differences']['total']['mAP']
    assert set(content['cka']) == {'before', 'alone', 'distilled'}
    assert {'teacher', 'alone', 'distilled'} == set(content['collapse']) == set(content['spectra'])
    assert content['matches']['rows'][0][0] == 'rcka' and content['models']['teacher']['sha256']
    # one teacher, and the same data and schedule throughout
    assert not [note for note in content['notes'] if 'left out' in note or 'makes a difference' in note]


def test_predictions_are_read_by_coco(report):
    truth = COCO(str(report / 'predictions/dataset.json'))
    files = sorted(path.name for path in (report / 'predictions').glob('*.json'))
    assert files == ['alone_seed_0.json', 'alone_seed_1.json', 'dataset.json', 'distilled_seed_0.json',
                     'distilled_seed_1.json', 'teacher.json']  # fmt: skip
    for name in files:
        # pycocotools cannot load an empty list
        if name != 'dataset.json' and json.loads((report / 'predictions' / name).read_text()):
            assert truth.loadRes(str(report / 'predictions' / name)).getImgIds() == truth.getImgIds()


def test_detections_are_kept(report, runs, monkeypatch):
    monkeypatch.setattr('kd_ext.report.detections.TestImages.detect', lambda *args: pytest.fail('detected again'))
    content = write_report(Asked([runs[0] / 'distilled_0']), runs[0] / 'again.html')
    known = json.loads((report / 'report.json').read_text())
    assert content['precision']['distilled, seed 0'] == known['precision']['distilled, seed 0']


def test_page_is_small_and_whole(report):
    text = (report / 'report.html').read_text()
    assert len(text) < 6 * 2**20
    assert '<script' not in text and 'http://' not in text.replace('http://www.w3.org', '') and 'https://' not in text
    assert text.count('<svg') >= 20 and 'role="img"' in text


@pytest.mark.skipif(find_browser() is None, reason='no Chromium on PATH or in KD_EXT_BROWSER')
@pytest.mark.parametrize(
    ('name', 'width', 'dark'), [('light', 1280, False), ('dark', 1280, True), ('phone', 360, False)]
)
def test_in_a_browser(report, tmp_path, name, width, dark):
    shots = Path(os.environ.get('KD_EXT_ARTEFACTS') or tmp_path)
    shots.mkdir(parents=True, exist_ok=True)
    with Browser(tmp_path / 'profile') as browser:
        browser.show(report / 'report.html', width, dark=dark)
        assert browser.run('document.documentElement.scrollWidth') <= width
        broken = "[...document.querySelectorAll('a[href^=\"#\"], use')].map(one => one.getAttribute('href')"
        broken += " || one.getAttribute('xlink:href'))"
        assert browser.run(f'{broken}.filter(id => !document.getElementById(id.slice(1)))') == []
        assert browser.run('[...document.links].filter(one => !one.hash).length') == 0
        pictures = (
            "Promise.all([...document.querySelectorAll('image')].map(one => { const picture = new Image();"
            " picture.src = one.getAttribute('href'); return picture.decode().then(() => picture.naturalWidth) }))"
        )
        widths = browser.run(pictures)
        assert len(widths) >= 2 and all(widths)
        ids = "[...document.querySelectorAll('[id]')].map(one => one.id)"
        assert browser.run(f'(ids => ids.length - new Set(ids).size)({ids})') == 0
        unnamed = "[...document.querySelectorAll('[role=img]')].filter(one => !one.getAttribute('aria-label')).length"
        assert browser.run(unnamed) == 0
        light = browser.run('getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(one => one > 128)')
        assert light is not dark
        browser.screenshot(shots / f'report_{name}.png')
        browser.pdf(shots / 'report.pdf')
        assert (shots / 'report.pdf').read_bytes().startswith(b'%PDF')
        assert browser.complaints == []


def copied(runs, tmp_path, name='distilled_0'):
    return Path(shutil.copytree(runs[0] / name, tmp_path / name))


def notes(asked, tmp_path):
    content = write_report(asked, tmp_path / 'report.html')
    assert (tmp_path / 'report.html').read_text().endswith('</html>\n')
    return content, ' '.join(content['notes'])


def test_without_a_checkpoint(runs, tmp_path):
    folder = copied(runs, tmp_path)
    for path in folder.glob('*.pth'):
        path.unlink()
    content, text = notes(Asked([folder], [runs[0] / 'alone_0']), tmp_path)
    assert 'distilled, seed 0: It holds no checkpoint' in text
    assert (
        set(content['precision']) == {'teacher', 'alone, seed 0'} and content['curves']['distilled, seed 0']['terms']
    )
    assert content['differences'] is None


def test_damaged_checkpoint_and_half_a_log(runs, tmp_path):
    folder = copied(runs, tmp_path)
    (folder / 'epoch_2.pth').write_bytes(b'PK half a file')
    (path,) = folder.glob('*/vis_data/scalars.json')
    first, second = path.read_text().splitlines()[:2]
    path.write_text(f'{first}\n{second[:50]}')
    content, text = notes(Asked([folder]), tmp_path)
    assert 'distilled, seed 0: left out.' in text and 'before the schedule does' in text and 'cannot be read' in text
    assert 'No training of the student alone is given' in text


def test_other_classes_data_and_one_seed(runs, tmp_path):
    folder = edited(copied(runs, tmp_path, 'alone_0'), "'ring',", "'hoop',")
    content, text = notes(Asked([runs[0] / 'distilled_0'], [folder]), tmp_path)
    assert 'alone, seed 0: left out. Expected its classes to be the 6 of the images' in text
    assert 'but got 6, with hoop. Only its curves are shown' in text
    assert 'alone, seed 0: it has other training images than distilled, seed 0' in text
    assert 'One seed: a difference may be chance' in text and 'alone, seed 0' in content['curves']


def test_data_that_are_gone(runs, tmp_path):
    folder = copied(runs, tmp_path)
    edited(folder, 'instances_val.json', 'instances_gone.json')
    content, text = notes(Asked([folder]), tmp_path)
    assert 'Detections: left out.' in text and 'instances_gone.json' in text
    assert content['curves']['distilled, seed 0']['task'][0] and 'precision' not in content


def test_runs_that_do_not_belong(runs, tmp_path):
    folder = edited(copied(runs, tmp_path, 'distilled_1'), 'kd_ext.RCKALoss', 'mmrazor.PKDLoss')
    asked = Asked([runs[0] / 'distilled_0', folder, tmp_path / 'none', runs[0] / 'alone_0'], [runs[0] / 'distilled_1'])
    content, text = notes(asked, tmp_path)
    assert 'It learns by rcka (PKDLoss), the first run by rcka (RCKALoss)' in text
    assert 'Expected RUN to be a work dir' in text and 'It distils, so it is no training of the student alone' in text
    # a plain training among the runs counts as alone
    assert set(content['runs']) == {'distilled, seed 0', 'alone, seed 0'} and content['differences']


def test_a_teacher_that_is_gone(runs, tmp_path):
    asked = Asked([runs[0] / 'distilled_0'], teacher=('mmdet::nowhere.py', 'none.pth'))
    content, text = notes(asked, tmp_path)
    assert 'The teacher: left out. Expected --teacher to be' in text
    assert 'teacher' not in content['precision'] and 'cka' not in content


def test_no_run_at_all(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.main(['report', str(tmp_path), '--out', str(tmp_path / 'report.html')])
    assert 'Expected RUN to be a work dir' in capsys.readouterr().err
    assert not (tmp_path / 'report.html').exists()
