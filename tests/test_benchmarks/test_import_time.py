"""What ``import kd_ext`` costs: its own few modules beside those that its users import anyway."""

import statistics

from benchmarks import import_time
from tests.helpers.fresh_processes import fresh


def test_imports_little_of_its_own():
    script = """
import sys, mmengine.runner, mmrazor
before = set(sys.modules)
import kd_ext
print(*sorted(set(sys.modules) - before))
"""
    found = fresh(script).split()
    assert {name for name in found if not name.startswith('kd_ext')} <= {'mmengine.hub', 'mmengine.hub.hub'}
    own = {name.split('.')[1] for name in found if name.startswith('kd_ext.')}
    assert own == {'errors', 'ops', 'patches', 'recipes', 'version'}


def test_figures(monkeypatch):
    times = iter([(9.0, 9.0)] * 3 + [(0.5, 1.0), (2.5, 4.0), (3.5, 7.0)] * 4)
    monkeypatch.setattr(import_time, 'seconds', lambda statement: next(times))
    report = import_time.measure(4)
    assert report['cpu']['base']['median'] == 2 and report['cpu']['kd_ext']['median'] == 3
    assert report['wall']['base']['median'] == 3 and report['wall']['kd_ext']['median'] == 6


def test_seconds():
    cpu, wall = import_time.seconds('sum(range(10**6))')
    assert 0 < cpu < 60 and 0 < wall < 60
    assert statistics.median([cpu, wall]) > 0
