"""README and pages: links lead somewhere, tables are complete, examples run."""

import re

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from kd_ext.algorithms import DetectionDistill
from kd_ext.recipes import METHODS
from kd_ext.taps import TAPS
from kd_ext.terms.entry import SETTINGS
from tests.helpers import tiny_detectors as tiny
from tests.helpers.data_sets import ROOT
from tests.helpers.shrunken_configs import distilled

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'results/README.md', *sorted(ROOT.glob('docs/**/*.md'))]
README = (ROOT / 'README.md').read_text()
DISTILL = (ROOT / 'docs/distill.md').read_text()


def python_blocks(page: str) -> list[str]:
    return re.findall(r'```python\n(.*?)```', page, re.S)


@pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)#]+)', page.read_text()):
        assert target.startswith('https://') or (page.parent / target).exists(), target


# docs/new_loss.md names the files that its reader writes
@pytest.mark.parametrize(
    'page', [page for page in PAGES if page.stem != 'new_loss'], ids=lambda path: str(path.relative_to(ROOT))
)
def test_files_that_a_page_names_exist(page):
    names = re.findall(
        r'`((?:kd_ext|tests|tools|benchmarks|demo|configs|docs|results)/[\w./-]+\.(?:py|md|sh|json))`',
        page.read_text(),
    )
    missing = [name for name in names if not (ROOT / name).exists()]
    assert not missing, missing


def test_readme_fits_on_a_few_screens():
    assert len(README.splitlines()) <= 150


def test_readme_names_every_method():
    listed = re.search(r'`--distill` takes one or more of\n(.*?);', README, re.S)[1]
    assert set(re.findall(r'`([\w+]+)`', listed)) == set(METHODS)


def test_readme_config_builds(tmp_path):
    (text,) = python_blocks(README)
    path = tmp_path / 'mine.py'
    path.write_text(text)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(distilled(Config.fromfile(path), 'mine'))
    assert isinstance(model, DetectionDistill) and list(model.distiller.terms) == ['rcka']


def test_every_setting_of_an_entry_is_in_the_table():
    rows = re.findall(r'^\| `(\w+)` \|', DISTILL.partition('## Where')[0], re.M)
    assert set(rows) == {'type', 'loss', *SETTINGS}


def test_every_tap_is_in_the_table():
    rows = re.findall(r"^\| `'(\w+)'` \|", DISTILL, re.M)
    assert set(rows) == set(TAPS)


def test_every_argument_of_the_algorithm_is_shown():
    first = python_blocks(DISTILL)[0]
    from kd_ext.algorithms.detection_distill import ARGUMENTS

    shown = set(re.findall(r'^    (\w+)=', first, re.M)) - {'type'}
    assert shown == set(ARGUMENTS) - {'data_preprocessor', 'init_cfg'}  # as in any model


def test_the_entries_of_the_page_give_their_terms():
    scope: dict = {}
    exec(python_blocks(DISTILL)[1], scope)
    terms = tiny.losses(tiny.distill(**scope['distill']))
    for name in ('rcka', 'nd'):
        assert float(terms[f'distill.loss_{name}'].detach()) > 0
