"""One loss of each detector with class means for a classifier."""

import pytest
import torch
from mmengine.logging import MessageHub

from kd_ext.class_means.classifier import PrototypeClassifier
from tests.helpers import detector_zoo as zoo
from tests.helpers import tiny_detectors as tiny

WIDTH = 12


def wrapped(head, classifier):
    if isinstance(head, (list, tuple)):
        return [wrapped(stage, classifier) for stage in head]
    return dict(type='kd_ext.PrototypeHead', head=head, classifier=dict(classifier))


def detector(name, **classifier):
    cfg = zoo.detector(name)
    holder = cfg.get('roi_head', cfg)
    holder['bbox_head'] = wrapped(holder['bbox_head'], classifier)
    return cfg


@pytest.mark.parametrize('name', zoo.CONFIGS)
def test_a_loss_step(name):
    MessageHub.get_current_instance().update_info('epoch', 0)  # TOOD asks
    model = tiny.build(detector(name, class_means=torch.rand(3, WIDTH)))
    layers = [m for m in model.modules() if isinstance(m, PrototypeClassifier)]
    terms = tiny.losses(model, zoo.batch(name))
    total = sum(sum(value) if isinstance(value, list) else value for key, value in terms.items() if 'loss' in key)
    total.backward()
    assert layers and total.isfinite()
    # nothing unused: DDP would wait for it
    for layer in layers:
        assert all(p.grad is not None for p in layer.parameters())
    plain = tiny.build(detector(name, width=WIDTH), seed=1)
    plain.load_state_dict(model.state_dict(), strict=True)
