import io
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.testing import assert_close

from kd_ext.analysis.neural_collapse import measure, nc1, nc2, nc3
from kd_ext.analysis.neural_collapse.figures import collapse_table, draw_collapse
from kd_ext.class_means.moments import Moments

K, D = 5, 7


def etf(classes=K, width=D):
    """A rotated and shifted simplex ETF."""
    rows = torch.eye(classes, dtype=torch.double) - 1 / classes
    rows = torch.cat([rows, rows.new_zeros(classes, width - classes)], 1)
    turn = torch.linalg.qr(torch.randn(width, width).double())[0]
    return 3 * rows @ turn + torch.rand(width)


def regions(count=200, classes=K):
    labels = torch.randint(-1, classes + 1, (count,))
    return torch.rand(count, D) + etf(K + 1)[labels].float(), labels


def moments(embeddings, labels, rows=K):
    return Moments(rows, embeddings.shape[1]).add(embeddings, labels)


def naive(embeddings, labels, rows=K):
    """NC1 and NC2 with loops and an explicit pseudo-inverse."""
    h = [embeddings[labels == k].double() for k in range(rows)]
    m = [part.mean(0) for part in h]
    g = sum(m) / rows
    total = sum(len(part) for part in h)
    s_w = sum(torch.outer(x - m[k], x - m[k]) for k in range(rows) for x in h[k]) / total
    s_b = sum(torch.outer(m[k] - g, m[k] - g) for k in range(rows)) / rows
    cosines = torch.tensor([torch.cosine_similarity(m[k] - g, m[j] - g, dim=0) for k in range(rows) for j in range(k)])
    return (
        torch.trace(s_w @ torch.linalg.pinv(s_b, rtol=1e-10)) / rows,
        (cosines + 1 / (rows - 1)).abs().mean(),
        cosines.std(correction=0),
    )


def test_an_etf_has_collapsed():
    means = etf()
    labels = torch.arange(K).repeat(4)
    found = measure(moments(means[labels], labels), 2 * means + 1)
    for value in (found.nc1, found.nc2, found.nc2_std, found.nc3, found.norm_spread):
        assert abs(value) < 1e-9
    assert_close(found.norms, means.norm(dim=1))
    off = found.cosines[~torch.eye(K).bool()]
    assert_close(off, torch.full_like(off, -1 / (K - 1)))
    # the opposite classifier
    assert nc3(means, -means) == pytest.approx(2)


def test_hand_worked():
    # classes at -1 and 1 on a line, each with spread 1/2 along it and 3
    # across: S_B = 1 on the line alone, S_W = 1/4 there: NC1 = 1/4 / 2
    h = torch.tensor([[-1.5, 3.0], [-0.5, -3.0], [0.5, 3.0], [1.5, -3.0]])
    found = measure(moments(h, torch.tensor([0, 0, 1, 1]), 2))
    assert found.nc1 == pytest.approx(1 / 8)
    assert found.nc2 == pytest.approx(0)
    # three means in a right angle: centred (2, -1), (-1, 2), (-1, -1) / 3,
    # cosines -4/5, -1/sqrt(10) twice; an ETF has -1/2
    means = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    expected = (0.3 + 2 * (0.5 - 1 / math.sqrt(10))) / 3
    assert nc2(means)[0] == pytest.approx(expected)


def test_against_loops():
    embeddings, labels = regions()
    found = measure(moments(embeddings, labels))
    for value, wanted in zip((found.nc1, found.nc2, found.nc2_std), naive(embeddings, labels)):
        assert value == pytest.approx(float(wanted), rel=1e-6)
    assert found.nc1 > 0 and found.nc3 is None


def test_no_shift_scale_or_rotation_matters():
    embeddings, labels = regions()
    turn = torch.linalg.qr(torch.randn(D, D).double())[0]
    moved = 5 * embeddings.double() @ turn + 2
    first, second = (measure(moments(h, labels)) for h in (embeddings, moved))
    for key in ('nc1', 'nc2', 'nc2_std', 'norm_spread'):
        value = getattr(first, key)
        assert value == pytest.approx(getattr(second, key), rel=1e-4), key


def test_batches_and_parts_add_up():
    embeddings, labels = regions()
    whole = moments(embeddings, labels)
    parts = moments(embeddings[:70], labels[:70])
    parts.add(embeddings[70:71], labels[70:71]).add(embeddings[:0], labels[:0])
    parts.merge(moments(embeddings[71:], labels[71:]))
    assert parts.all_reduce() is parts  # one process: nothing to add
    for mine, other in zip(parts._state(), whole._state()):
        assert_close(mine, other)
    assert whole.counts.sum() == ((labels >= 0) & (labels < K)).sum()


def test_rare_classes_are_left_out_and_named():
    embeddings, labels = regions()
    labels[labels == 2] = -1
    labels[(labels == 4).nonzero()[1:, 0]] = -1
    names = ['cat', 'dog', 'cow', 'car', 'bus']
    summed = moments(embeddings, labels, K + 1)
    found = measure(summed, names=names)
    assert found.left_out == dict(cow=0)
    found = measure(summed, torch.rand(K + 1, D), names, min_regions=2)
    assert found.left_out == dict(cow=0, bus=1)
    assert found.classes == ['cat', 'dog', 'car', 'background']
    assert found.cosines.shape == (4, 4) and len(found.norms) == 4
    assert 0 < found.nc3 < 2
    # nothing of them is in the means' measures
    kept = torch.tensor([0, 1, 3, 5])
    assert found.nc2 == pytest.approx(nc2(summed.means[kept])[0])
    assert found.nc1 == pytest.approx(nc1(summed.means[kept], summed.within))


def test_more_classes_than_dimensions():
    embeddings, labels = regions()
    flat = embeddings[:, :2]
    found = measure(moments(flat, labels))
    assert found.nc1 == pytest.approx(float(naive(flat, labels)[0]))


def test_errors():
    embeddings, labels = regions()
    summed = moments(embeddings, labels)
    with pytest.raises(ValueError, match='at least 2, but got 0'):
        measure(Moments(K, D))
    with pytest.raises(ValueError, match='at least 5 rows of width 7'):
        measure(summed, torch.rand(4, D))
    with pytest.raises(ValueError, match='names to be 5 of them'):
        measure(summed, names=['a'])
    embeddings[labels == K] = math.inf  # not counted, not looked at
    summed.add(embeddings, labels)
    with pytest.raises(ValueError, match='inf or NaN in 1 of'):
        embeddings[(labels == 0).nonzero()[0]] = math.nan
        summed.add(embeddings, labels)
    with pytest.raises(ValueError, match=r'of shape \(5, 7\)'):
        summed.merge(Moments(K, 3))
    with pytest.raises(ValueError, match='min_regions'):
        measure(summed, min_regions=0)
    assert summed.sums.isfinite().all()


def test_figure_and_table(tmp_path):
    embeddings, labels = regions()
    names = [f'class {k}' for k in range(K)]
    student = moments(embeddings, labels)
    labels[labels == 1] = -1
    measures = dict(
        teacher=measure(moments(etf(K + 1)[labels], labels), etf(), names), student=measure(student, names=names)
    )
    path = tmp_path / 'collapse.png'
    draw_collapse(measures, path)
    assert path.read_bytes()[:4] == b'\x89PNG'
    assert 10_000 < path.stat().st_size < 200_000
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(collapse_table(measures))
    text = console.export_text()
    assert 'too few regions: class 1 (0)' in text
    assert 'student' in text and f'{measures["student"].nc1:.4g}' in text


WORKER = """
import torch, torch.distributed as dist
from kd_ext.class_means.moments import Moments
dist.init_process_group('gloo')
rank = dist.get_rank()
torch.manual_seed(0)
h, y = torch.rand(30, 4), torch.randint(0, 3, (30, ))
whole, part = Moments(3, 4).add(h, y), Moments(3, 4)
if rank == 0:
    part.add(h[:20], y[:20])
else:
    part.add(h[20:], y[20:])
part.all_reduce()
for a, b in zip(part._state(), whole._state()):
    torch.testing.assert_close(a, b)
print('equal')
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_add_up(tmp_path):
    script = tmp_path / 'worker.py'
    script.write_text(WORKER)
    root = str(Path(__file__).resolve().parents[2])
    out = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', str(script)],
        text=True,
        capture_output=True,
        env=dict(os.environ, PYTHONPATH=root, OMP_NUM_THREADS='1'),
    )
    assert out.stdout.count('equal') == 2, out.stderr


@pytest.mark.parametrize('background', [False, True])
def test_one_class_is_said_before_any_image_is_read(background):
    from types import SimpleNamespace

    from kd_ext.analysis.neural_collapse.job import CollapseJob
    from tests.helpers import tiny_detectors as tiny

    job = CollapseJob(SimpleNamespace(classes=('disk',), num_classes=1), [0], background=background)
    with pytest.raises(ValueError, match=r'two or more.*1, disk.*--background'):
        job.head(tiny.build(tiny.fcos(num_classes=1)), 'model')
