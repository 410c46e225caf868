"""NMS and soft NMS against the compiled operators, and by hand."""

import pytest
import torch

from kd_ext.ops import nms as ours
from tests.helpers.without_ops import compiled

ALL_EQUAL = torch.tensor([[0.0, 0.0, 9.0, 9.0]]).repeat(7, 1)
BOXES = {
    'none': torch.zeros(0, 4),
    'one': torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
    'all equal': ALL_EQUAL,
    'without area': torch.tensor(
        [[5.0, 5.0, 5.0, 5.0], [5.0, 5.0, 5.0, 5.0], [1.0, 1.0, 1.0, 8.0], [0.0, 0.0, 9.0, 9.0]]
    ),
    'inside out': torch.tensor([[9.0, 9.0, 0.0, 0.0], [0.0, 0.0, 9.0, 9.0], [8.0, 0.0, 2.0, 9.0]]),
    'outside the image': torch.tensor(
        [[-90.0, -80.0, -10.0, -10.0], [-88.0, -80.0, -10.0, -9.0], [1e6, 1e6, 2e6, 2e6]]
    ),
    'infinite': torch.tensor(
        [[-torch.inf, 0.0, torch.inf, 9.0], [0.0, 0.0, 9.0, 9.0], [0.0, 0.0, torch.inf, torch.inf]]
    ),
    'no numbers': torch.tensor([[torch.nan, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.5]]),
}


def crowd(count, seed=0):
    """Boxes in three heaps, with scores of which many are equal."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 3, (count, 1), generator=generator) * 60 + torch.rand(count, 2, generator=generator) * 12
    boxes = torch.cat([corner, corner + 5 + torch.rand(count, 2, generator=generator) * 30], 1)
    return boxes, torch.randint(0, 40, (count,), generator=generator) / 40


CASES = [pytest.param(boxes, torch.linspace(0.9, 0.1, len(boxes)), id=name) for name, boxes in BOXES.items()]
CASES += [pytest.param(boxes, torch.full((len(boxes),), 0.5), id=f'{name}, ties') for name, boxes in BOXES.items()]
CASES += [pytest.param(*crowd(count), id=f'{count} in heaps') for count in (30, 400, 1300)]


class TestNMS:
    def test_by_hand(self):
        # IoU of the first two: 36 / (64 + 36 - 36) = 0.5625
        boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 6.0, 6.0], [20.0, 20.0, 30.0, 30.0]])
        scores = torch.tensor([0.5, 0.7, 0.9])
        assert ours.nms(boxes, scores, 0.56, 0).tolist() == [2, 1]
        assert ours.nms(boxes, scores, 0.57, 0).tolist() == [2, 1, 0]
        # with the offset 49 / 81 = 0.605
        assert ours.nms(boxes, scores, 0.60, 1).tolist() == [2, 1]
        assert ours.nms(boxes, scores, 0.61, 1).tolist() == [2, 1, 0]

    @pytest.mark.parametrize('offset', [0, 1])
    @pytest.mark.parametrize('threshold', [0.0, 0.5, 0.9])
    @pytest.mark.parametrize('boxes, scores', CASES)
    def test_keeps_what_the_compiled_one_keeps(self, boxes, scores, threshold, offset):
        wanted = compiled().nms(boxes, scores, iou_threshold=threshold, offset=offset)
        assert ours.nms(boxes, scores, iou_threshold=threshold, offset=offset).tolist() == wanted.tolist()

    def test_blocks_do_not_matter(self, monkeypatch):
        boxes, scores = crowd(200)
        whole = ours.nms(boxes, scores, 0.4, 0)
        monkeypatch.setattr(ours, 'BLOCK', 7)
        assert ours.nms(boxes, scores, 0.4, 0).equal(whole) and 3 < len(whole) < 150

    @pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
    def test_other_precisions(self, dtype):
        boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 6.0, 6.0]], dtype=dtype)
        assert ours.nms(boxes, torch.tensor([0.5, 0.75], dtype=dtype), 0.5, 0).tolist() == [1]


class TestSoftNMS:
    def call(self, module, boxes, scores, **settings):
        dets = boxes.new_zeros(len(boxes), 5)
        order = module.softnms(boxes, scores, dets, **settings)
        return order, dets[: len(order)]

    def test_by_hand(self):
        boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 6.0, 6.0]])
        settings = dict(iou_threshold=0.5, sigma=0.5, min_score=0.01, method=1, offset=0)
        order, dets = self.call(ours, boxes, torch.tensor([0.4, 0.8]), **settings)
        assert order.tolist() == [1, 0]
        # 0.4 * (1 - 0.5625)
        torch.testing.assert_close(dets[:, 4], torch.tensor([0.8, 0.175]))

    @pytest.mark.parametrize('min_score', [0.0, 0.05, 0.3])
    @pytest.mark.parametrize('method', [0, 1, 2])
    @pytest.mark.parametrize('boxes, scores', CASES[:-1])
    def test_equals_the_compiled_one(self, boxes, scores, method, min_score):
        settings = dict(iou_threshold=0.3, sigma=0.5, min_score=min_score, method=method, offset=0)
        before = boxes.clone(), scores.clone()
        results = [self.call(module, boxes, scores, **settings) for module in (compiled(), ours)]
        assert results[1][0].tolist() == results[0][0].tolist()
        torch.testing.assert_close(results[1][1], results[0][1], atol=1e-5, rtol=0, equal_nan=True)
        torch.testing.assert_close((boxes, scores), before, equal_nan=True)
