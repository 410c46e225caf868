"""What is read from a work dir, whole and damaged."""

import json

import pytest

from kd_ext.report.gather import Asked
from kd_ext.report.work_dir import primary_metric, read_run
from kd_ext.report.write import write_report
from tests.helpers.work_dirs import DISTILLS, PLAIN, line, write

VAL = {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5, 'time': 0.1, 'step': 2}


def test_reads_log_scalars_and_table(tmp_path):
    run = read_run(write(tmp_path, [line(10, 4.0), line(20, 2.0), VAL, line(30, 1.0)]))
    assert run.distills and run.method == dict(rcka='RCKALoss') and run.terms == ['rcka']
    assert run.seed == 5  # of the log, as the config has none
    assert run.curve('distill.loss_rcka') == ([10, 20, 30], [4.0, 2.0, 1.0])
    assert run.task_loss() == ([10, 20, 30], [1.0, 1.0, 1.0])
    assert run.val[0]['at'] == 20 and primary_metric(run.val[0]) == 'coco/bbox_mAP'
    assert run.versions() == dict(Python='3.11.7', PyTorch='2.13.0+cpu', MMEngine='0.10.7')
    assert run.command() == 'python tools/train.py a.py'
    table = run.matches()
    assert table['columns'][0] == 'entry' and [row[1] for row in table['rows']] == ['neck[0]', 'neck[1]']
    assert table['rows'][1][7:9] == ['conv 1x1', '4,096']
    assert table['notes'] == ['4,096 added parameters, in training alone']


def test_seed_of_the_config_comes_first(tmp_path):
    run = read_run(write(tmp_path, model=PLAIN, randomness=dict(seed=7)))
    assert run.seed == 7 and not run.distills and run.method == {}


def test_half_a_log(tmp_path):
    run = read_run(write(tmp_path, [line(10, 4.0), line(15, 2.0)], tail='{"loss": 0.3, "st'))
    assert [one['step'] for one in run.train] == [10, 15]
    notes = ' '.join(run.notes)
    assert '1 line of its scalars cannot be read' in notes
    assert 'log ends at step 15, before the schedule' in notes
    assert 'no checkpoint' in notes


def test_nothing_but_a_config(tmp_path):
    run = read_run(write(tmp_path, log=''))
    notes = ' '.join(run.notes)
    assert 'no scalars' in notes and 'no log' in notes and 'no checkpoint' in notes
    assert run.matches() is None and run.seed is None and run.versions() == {}


def test_a_later_start_replaces_what_it_repeats(tmp_path):
    write(tmp_path, [line(10), line(20), VAL, line(30)], start='20260102_000000')
    run = read_run(write(tmp_path, [line(20, loss=9.0), line(30)], start='20260103_000000'))
    assert [one['step'] for one in run.train] == [10, 20, 30] and run.train[1]['loss'] == 9.0
    assert not run.val  # at step 20, which was trained again


def test_last_checkpoint(tmp_path):
    write(tmp_path)
    for name in ('epoch_9.pth', 'epoch_10.pth', 'student_epoch_11.pth', 'best_epoch_12.pth'):
        (tmp_path / name).touch()
    assert read_run(tmp_path).checkpoint.name == 'epoch_10.pth'
    # the work dir may have moved since
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_9.pth')
    assert read_run(tmp_path).checkpoint.name == 'epoch_9.pth'


def test_no_work_dir(tmp_path):
    with pytest.raises(FileNotFoundError, match='Expected RUN to be a work dir.*--work-dir'):
        read_run(tmp_path / 'none')
    write(tmp_path / 'train')
    with pytest.raises(FileNotFoundError, match='In it: train'):
        read_run(tmp_path)


def test_a_page_of_curves_alone(tmp_path):
    # neither data, nor a student that can be built, nor a checkpoint
    lines = [line(step, 4.0 / step) for step in range(10, 60, 10)]
    run = write(tmp_path / 'run', lines, dict(DISTILLS, student='mmdet::nowhere.py'))
    content = write_report(Asked([run]), tmp_path / 'report.html', tmp_path / 'report.json')
    assert json.loads(json.dumps(content)) == json.loads((tmp_path / 'report.json').read_text())
    notes = ' '.join(content['notes'])
    assert 'no checkpoint' in notes and 'Detections: left out.' in notes and 'mmdet::nowhere.py' in notes
    assert [one['text'] for one in content['verdict']][1] == 'The term rcka fell by 80%.'
    text = (tmp_path / 'report.html').read_text()
    assert 'id="curves"' in text and 'id="precision"' not in text and 'conv 1x1' in text
