"""Sums over a data set: right, whole after any interruption, never double."""

import pytest
import torch
from torch.testing import assert_close

from kd_ext.class_means import job as mean_job
from kd_ext.class_means.job import MeanJob
from kd_ext.class_means.partials import Partials
from kd_ext.data.labelled import LabelledData
from kd_ext.taps import find_head
from kd_ext.teachers.build import build_teacher
from tests.helpers import class_means_by_hand as by_hand
from tests.helpers import short_trainings as training
from tests.helpers import tiny_detectors as tiny

MODELS = dict(fcos=tiny.fcos(num_classes=6), faster=tiny.faster_rcnn(num_classes=6))
WHO = dict(teacher='a', data='b')


@pytest.fixture(params=list(MODELS))
def kind(request):
    return request.param


@pytest.fixture
def job(kind, shapes, tmp_path):
    """Makes jobs over the same images and the same output."""
    model = build_teacher(tiny.build(MODELS[kind]), None)
    head = find_head(model, 'teacher')
    data = LabelledData(training.config(shapes, tmp_path, 'random'))

    def make(indices=range(8), identity=WHO, **options):
        return MeanJob(model, head, data, indices, tmp_path / 'means.pth', identity, **options)

    return make


def oracle(kind, root, indices):
    model = tiny.build(MODELS[kind]).eval()
    parts = []
    for index, (path, boxes, labels) in enumerate(by_hand.coco_images(root)):
        if index not in indices:
            continue
        inputs, size, _ = by_hand.picture(path)
        parts.append(
            by_hand.fcos_regions(model, inputs, boxes, labels)
            if kind == 'fcos'
            else by_hand.roi_regions(model, inputs, size, boxes, labels, index)
        )
    return by_hand.means(parts, 6 + (kind == 'faster'))


@pytest.mark.parametrize('indices', [range(8), [1, 4, 6]])
def test_equal_to_those_by_hand(kind, job, shapes, indices):
    one = job(indices)
    assert one.run()
    result = one.result()
    means, counts = oracle(kind, shapes, indices)
    assert result.counts.tolist() == counts.tolist()
    assert_close(result.means, means, rtol=1e-5, atol=1e-6)
    assert result.info == dict(images=len(indices))


def test_stopped_and_resumed(job, tmp_path):
    whole = job()
    assert whole.run()
    whole.finish()
    assert not list(tmp_path.glob('*partial*'))
    answers = iter([False, False, False, True])
    first = job()
    assert not first.run(lambda: next(answers))
    assert [path.name for path in tmp_path.glob('*partial*')] == ['means.pth.partial.0']
    second = job()
    assert second.run()
    assert second.partial.done.all()
    # to the last bit
    assert torch.equal(second.result().means, whole.result().means)
    assert torch.equal(second.result().counts, whole.result().counts)


def test_an_error_loses_nothing(job, monkeypatch):
    whole = job()
    whole.run(), whole.finish()
    add, calls = mean_job.add_regions, []

    def failing(*args):
        calls.append(args)
        if len(calls) == 4:
            raise OSError('disk')
        add(*args)

    monkeypatch.setattr(mean_job, 'add_regions', failing)
    with pytest.raises(OSError):
        job(save_every=2).run()
    monkeypatch.undo()
    again = job()
    assert again.partials.merge().done.sum() == 2  # what was saved last
    assert again.run()
    assert torch.equal(again.result().means, whole.result().means)


def test_saved_now_and_then(job, tmp_path):
    one, seen = job(save_every=3), []

    def look():
        files = list(tmp_path.glob('*partial.0'))
        seen.append(int(one.partials.read(files[0]).done.sum()) if files else 0)

    one.run(look)
    assert seen == [0, 0, 0, 0, 3, 3, 3, 6, 6]


def test_fresh(job):
    answers = iter([False, False, True])
    job().run(lambda: next(answers))
    other = dict(WHO, teacher='c')
    with pytest.raises(ValueError, match='one of another teacher.*--fresh'):
        job(identity=other).run()
    again = job(identity=other, fresh=True)
    assert again.run() and again.partial.done.all()


def test_a_bad_embedding_names_its_image(job, monkeypatch):
    stream = mean_job.stream_regions

    def broken(*args):
        for index, regions in stream(*args):
            if index == 2:
                regions.embeddings[0, 0] = float('nan')
            yield index, regions

    monkeypatch.setattr(mean_job, 'stream_regions', broken)
    with pytest.raises(ValueError, match='finite.*Image 2 .*train_00002.jpg'):
        job().run()


@pytest.fixture
def partials(tmp_path):
    return Partials(tmp_path / 'means.pth', WHO, 2, 3, 6)


def filled(partials, images, value=1.0):
    partial = partials.empty()
    partial.sums.add(torch.full((len(images), 3), value), torch.zeros(len(images)).long())
    partial.done[list(images)] = True
    return partial


def test_files_of_any_number_of_processes_are_merged(partials):
    for rank, images in ((0, [0, 3]), (1, [1]), (11, [4])):
        partials.write(rank, filled(partials, images))
    merged = partials.merge()
    assert merged.done.tolist() == [True, True, False, True, True, False]
    assert merged.sums.counts.tolist() == [4, 0]
    assert [path.name for path in partials.files()] == ['means.pth.partial.0']
    again = partials.merge()
    assert torch.equal(again.sums.sums, merged.sums.sums)


def test_a_crash_before_the_deletion_counts_nothing_twice(partials, monkeypatch):
    for rank in range(3):
        partials.write(rank, filled(partials, [rank]))

    def crash(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('pathlib.Path.unlink', crash)
        with pytest.raises(KeyboardInterrupt):
            partials.merge()
    assert len(partials.files()) == 3
    # and on: rank 0 adds to what was merged, the crash repeats
    merged = partials.merge()
    assert merged.sums.counts.tolist() == [3, 0]
    assert len(partials.files()) == 1


def test_a_crash_while_writing_leaves_the_last_file(partials, monkeypatch):
    partials.write(0, filled(partials, [0]))

    def crash(content, path):
        path.write_text('half')
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, 'save', crash)
        with pytest.raises(KeyboardInterrupt):
            partials.write(0, filled(partials, [0, 1]))
    assert partials.merge().done.sum() == 1
    partials.remove()
    assert not list(partials.out.parent.iterdir())


def test_files_that_cannot_be_used(partials):
    partials.write(0, filled(partials, [0]))
    partials.write(1, filled(partials, [0]))
    with pytest.raises(ValueError, match='of different images.*--fresh'):
        partials.merge()
    partials.path(1).write_bytes(b'torn')
    with pytest.raises(ValueError, match='can be read.*partial.1.*--fresh'):
        partials.merge()
    other = Partials(partials.out, dict(WHO, data='x'), 2, 3, 6)
    with pytest.raises(ValueError, match='teacher, data, but got one of another data'):
        other.read(partials.path(0))
