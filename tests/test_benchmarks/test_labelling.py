import json
from types import SimpleNamespace

import pytest

from benchmarks import labelling
from tests.helpers.labelling_teachers import fcos_files


@pytest.fixture
def files(shapes, tmp_path):
    return fcos_files(tmp_path, shapes)


def test_both_look_at_all_images(files, shapes, tmp_path, monkeypatch):
    out, seen = tmp_path / 'labels.json', []
    images = shapes / 'VOC2007/JPEGImages'
    both = labelling.candidates(str(files[0]), str(files[1]), images, 5, out)
    collate = labelling.pseudo_collate
    monkeypatch.setattr(labelling, 'pseudo_collate', lambda batch: (seen.extend(batch), collate(batch))[1])
    both['inference']()
    both['labelling']()
    assert len(seen) == len(json.loads(out.read_text())['images']) == 12
    assert not list(tmp_path.glob('*.partial.*'))


def test_report(files, shapes):
    args = dict(config=str(files[0]), checkpoint=str(files[1]), dir=str(shapes), images=4, batch_size=2, repeats=2)
    report = labelling.measure(SimpleNamespace(**args, clock='cpu'))
    assert report['images'] == 4 and report['rows']['inference']['ratio'] == 1
    assert report['rows']['labelling']['ratio'] > 0 and report['machine']['cores']
