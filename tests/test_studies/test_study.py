"""The order of a study, with trainings that only pretend."""

import json
import shutil

import pytest
import yaml

from studies import setting
from studies.gate import FAILED, PASSED
from studies.study import Study
from studies.training import FINISHED, Failed, Training, write_whole
from tests.test_studies.test_page import figures
from tests.test_studies.test_run import MICRO

ARMS = ['alone', 'kl', 'pkd', 'rcka']
POINTS = dict(alone=6.0, kl=20.0, pkd=30.0, rcka=40.0)


@pytest.fixture
def trained(monkeypatch):
    """Names of the cells in the order of their training; ``broken`` ones fail."""
    done = []

    def run(self, stop, say=print):
        if self.cell.name in run.broken:
            raise Failed(f'{self.cell.name}: out of memory')
        done.append(self.cell.name)
        self.checkpoint.parent.mkdir(parents=True)
        self.config.touch()
        self.checkpoint.write_text('weights')
        arm = self.cell.arm
        value = 60.0 if arm is None else POINTS[arm.name] + 0.2 * self.cell.seed % 2 * (1 + arm.distils)
        value += self.cell.choice.share or 0  # the larger share is the better one
        (self.folder / 'digest').write_text(self.digest)
        known = dict(figures(round(value, 3)), digest=self.digest)
        write_whole(self.folder / 'result.json', json.dumps(known))
        return known

    run.broken = set()
    monkeypatch.setattr(Training, 'run', run)
    monkeypatch.setattr('studies.study.prepare', lambda setting, work: None)
    return done, run.broken


def study(folder, **changes):
    content = dict(MICRO, arms=ARMS, seeds=[0, 1], search=dict(shares=[0.1, 0.3], seeds=[100]))
    path = folder / 'micro.yml'
    path.write_text(yaml.safe_dump({**content, **changes}))
    return Study(setting.load(path), folder / 'work', folder / 'results', jobs=1)


def content(folder):
    return json.loads((folder / 'results/micro.json').read_text())


def test_teacher_search_controls_gate_ours(tmp_path, trained):
    done, _ = trained
    one = study(tmp_path)
    assert one.run(ARMS, [0, 1])
    assert done == [
        'teacher',
        *(f'{arm}_{share}_seed-100' for arm in ('kl', 'pkd') for share in (0.1, 0.3)),
        *(name for seed in (0, 1) for name in (f'alone_seed-{seed}', f'kl_0.3_seed-{seed}', f'pkd_0.3_seed-{seed}')),
        *(f'rcka_{share}_seed-100' for share in (0.1, 0.3)),
        *(f'rcka_0.3_seed-{seed}' for seed in (0, 1)),
    ]
    found = content(tmp_path)
    assert found['gate']['verdict'] == PASSED
    assert found['search']['pkd']['chosen'] == dict(variant='', share=0.3)
    assert len(found['cells']) == len(done) - 1 and found['teacher']['checkpoint']
    log = (tmp_path / 'work/micro/log.txt').read_text()
    assert log.index('gate of micro: passed') < log.index('rcka_0.1_seed-100')
    # all is known from the JSON, the teacher alone from the work dir
    shutil.rmtree(tmp_path / 'work/micro')
    again = study(tmp_path)
    assert {state for _, state in again.plan(ARMS, [0, 1])} == {FINISHED}
    before = len(done)
    assert again.run(ARMS, [0, 1]) and len(done) == before


def test_ours_wait_for_the_gate(tmp_path, trained):
    done, _ = trained
    one = study(tmp_path, gate=dict(controls=3))
    assert one.run(ARMS, [0, 1])
    assert not any(name.startswith('rcka') for name in done)
    assert content(tmp_path)['gate']['verdict'] == FAILED
    assert 'not begun, as the gate has not passed: rcka' in (tmp_path / 'work/micro/log.txt').read_text()
    assert study(tmp_path, gate=dict(controls=3)).run(['rcka'], [0], past_gate=True)
    assert done[-1] == 'rcka_0.3_seed-0'


def test_a_failed_cell_stops_no_other(tmp_path, trained):
    done, broken = trained
    broken.add('pkd_0.1_seed-100')
    assert not study(tmp_path).run(ARMS, [0, 1])
    # the search of pkd is not finished, so no share is chosen
    assert 'kl_0.3_seed-1' in done and 'pkd_0.3_seed-100' in done and 'pkd_0.3_seed-0' not in done
    assert 'pkd_0.1_seed-100: out of memory' in (tmp_path / 'work/micro/log.txt').read_text()
    broken.clear()
    before = len(done)
    assert study(tmp_path).run(ARMS, [0, 1])
    assert done[before:][:3] == ['pkd_0.1_seed-100', 'pkd_0.3_seed-0', 'pkd_0.3_seed-1']


def test_a_new_teacher_means_new_students(tmp_path, trained):
    done, _ = trained
    study(tmp_path).run(['alone', 'pkd'], [0])
    teacher = next((tmp_path / 'work/teachers').iterdir())
    (teacher / 'train/epoch_1.pth').write_text('other weights')
    shutil.rmtree(tmp_path / 'work/micro')
    del done[:]
    study(tmp_path).run(['alone', 'pkd'], [0])
    assert done == ['pkd_0.1_seed-100', 'pkd_0.3_seed-100', 'pkd_0.3_seed-0']
