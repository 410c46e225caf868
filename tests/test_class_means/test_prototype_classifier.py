import math

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from torch.testing import assert_close

from kd_ext.class_means.classifier import PrototypeClassifier
from tests.helpers.tiny_detectors import batch, build, faster_rcnn, losses

K, D = 4, 6


@pytest.fixture
def means():
    return torch.rand(K, D)


def classifier(means, logits=K, in_features=D, **settings):
    return PrototypeClassifier(in_features, logits, means, **settings)


def test_logits_hand_worked():
    # means (2, 0), (0, 2): g = (1, 1), directions (1, -1), (-1, 1) / r2
    # s = (3, 1): z = (1, 0), cosines 1 / r2 and -1 / r2
    layer = classifier(2 * torch.eye(2), 2, 2, scale=3.0)
    half = 3 / math.sqrt(2)
    assert_close(layer(torch.tensor([[3.0, 1.0]])), torch.tensor([[half, -half]]))
    # not centred: directions (1, 0), (0, 1), z = (3, 1) / sqrt(10)
    layer = classifier(2 * torch.eye(2), 2, 2, scale=1.0, center=False)
    assert_close(layer(torch.tensor([[3.0, 1.0]])), torch.tensor([[3.0, 1.0]]) / math.sqrt(10))


def test_against_a_loop(means):
    layer = classifier(means, K + 1)
    with torch.no_grad():
        layer.bias.copy_(torch.rand(K + 1))
    x = torch.randn(5, D)
    g = means.mean(0)
    rows = [*(means - g), layer.learnt_rows[K]]
    for i, s in enumerate(x):
        for k, row in enumerate(rows):
            cosine = torch.cosine_similarity(s - g, row, dim=0)
            assert_close(layer(x)[i, k], 10 * cosine + layer.bias[k])


def test_the_means_are_classified_right(means):
    logits = classifier(means, K + 1)(means)
    assert logits[:, :K].argmax(1).tolist() == list(range(K))
    # an ETF of 80 classes at the default scale: probability 0.997
    logits = classifier(torch.eye(80), 80, 80)(torch.eye(80))
    assert logits.softmax(1).diagonal().min() > 0.996


def test_shapes(means):
    assert classifier(means)(torch.rand(2, 3, 5, D)).shape == (2, 3, 5, K)
    assert classifier(means)(torch.rand(0, D)).shape == (0, K)
    x = torch.rand(2, D, 3, 5)
    dense = classifier(means, channels_first=True)
    flat = classifier(means)(x.permute(0, 2, 3, 1))
    assert_close(dense(x), flat.permute(0, 3, 1, 2))


def test_anchors_are_outside_and_classes_inside(means):
    layer = classifier(means, 2 * K, num_anchors=2, channels_first=True)
    x = torch.rand(1, D, 2, 2)
    one = classifier(means, channels_first=True)(x)
    # the projection starts as the identity: both anchors score alike
    assert_close(layer(x), torch.cat([one, one], 1))
    with torch.no_grad():
        layer.projection[D:] *= -1
        layer.bias[K:] = 1
    changed = classifier(means, channels_first=True)(-x) + 1
    assert_close(layer(x), torch.cat([one, changed], 1))
    assert layer.weight.shape == (2 * K, D, 1, 1)


def test_gradients(means):
    layer = classifier(means, K + 1, 3).double()
    x = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    layer(x).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert layer.learnt_rows.grad[:K].abs().sum() == 0
    assert not layer.class_means.requires_grad


def test_a_class_without_a_mean_is_learnt(means):
    means[1] = 0
    layer = classifier(means)
    g = means[[0, 2, 3]].mean(0)
    x = torch.randn(5, D)
    assert_close(layer(x)[:, 1], 10 * torch.cosine_similarity(x - g, layer.learnt_rows[1:2]))
    layer(x)[:, 1].sum().backward()
    assert layer.learnt_rows.grad[1].abs().sum() > 0
    # a single class is at g, and has no direction either
    assert classifier(means[:1], 1)(x).abs().min() > 0


def test_zero_embeddings_are_finite(means):
    for x in (torch.zeros(2, D), means.mean(0).repeat(2, 1)):
        for center in (True, False):
            leaf = x.clone().requires_grad_()
            out = classifier(means, center=center)(leaf)
            out.sum().backward()
            assert out.isfinite().all() and leaf.grad.isfinite().all()


def test_a_new_projection_starts_at_the_prior(means):
    # inputs of a new network, alike and small, must not favour a class
    layer = classifier(10 * means, K + 1, in_features=32)
    x = 1e-2 * torch.rand(1, 32) + 1e-3 * torch.randn(50, 32)
    assert layer(x).abs().max() < 1e-2
    layer(x)[:, 2].sum().backward()
    assert layer.projection.grad.abs().sum() > 1
    # as many classes as dimensions leave no room for that
    assert classifier(torch.eye(5), 6, 32)(x).isfinite().all()


def test_half_precision(means):
    layer = classifier(means, in_features=8)
    x = torch.rand(3, 8)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.float32
    assert_close(out, layer(x), atol=0.2, rtol=0)
    assert layer.bfloat16()(x.bfloat16()).isfinite().all()


@pytest.mark.parametrize('learn_scale', [True, False])
def test_a_checkpoint_is_enough(means, learn_scale):
    layer = classifier(means, K + 1, 3, scale=7.0)
    plain = PrototypeClassifier(3, K + 1, width=D, learn_scale=learn_scale)
    x = torch.rand(2, 3)
    with pytest.raises(RuntimeError, match='class_means to be known'):
        plain(x)
    plain.load_state_dict(layer.state_dict(), strict=True)
    assert_close(plain(x), layer(x))
    # mmengine's own loader, and a path that is not there any more
    plain = PrototypeClassifier(3, K + 1, 'gone.pth', width=D)
    with pytest.raises(RuntimeError, match='no file gone.pth'):
        plain(x)
    load_state_dict(plain, layer.state_dict(), strict=True)
    assert_close(plain(x), layer(x))


def test_class_means_files(tmp_path, means):
    from kd_ext.class_means.stored import ClassMeans, save_class_means

    rows = torch.cat([means, torch.rand(1, D)])
    path = tmp_path / 'means.pth'
    save_class_means(path, ClassMeans(rows, torch.ones(K + 1), list('abcd')))
    assert_close(classifier(path).class_means, means)
    assert_close(classifier(str(path), K + 1).class_means[:K], means)
    assert not classifier(path, K + 1).class_means[K].any()
    both = classifier(path, K + 1, background=True)
    assert_close(both.class_means, rows)
    with pytest.raises(ValueError, match='4 classes. Class means belong'):
        classifier(path, 7)
    save_class_means(path, ClassMeans(means, None, list('abcd')))
    with pytest.raises(ValueError, match='row for the background'):
        classifier(path, K + 1, background=True)
    # no names: all rows, but for a background where there is none
    save_class_means(path, ClassMeans(rows))
    assert_close(classifier(path).class_means, means)
    assert_close(classifier(path, K + 1).class_means, rows)


def test_bad_inputs(means):
    for wrong, error, message in (
        (dict(class_means=None), ValueError, 'give width'),
        (dict(class_means='no.pth'), FileNotFoundError, 'no file no.pth'),
        (dict(class_means=means[:2]), ValueError, '4 or 5 rows'),
        (dict(class_means=means[0]), ValueError, r'tensor \(R, D\)'),
        (dict(class_means=means / 0), ValueError, 'inf or NaN'),
        (dict(class_means=means * 0), ValueError, 'nothing but zeros'),
        (dict(width=7), ValueError, 'width to be 6'),
        (dict(scale=0), ValueError, 'scale to be a finite number > 0'),
        (dict(num_anchors=2), ValueError, 'multiple of num_anchors'),
        (dict(in_features=0), ValueError, 'in_features to be a whole'),
    ):
        with pytest.raises(error, match=message):
            PrototypeClassifier(**{**dict(in_features=D, out_features=K + 1, class_means=means), **wrong})
    with pytest.raises(ValueError, match=r'of shape \(..., 6\)'):
        classifier(means)(torch.rand(2, D, 3, 3))
    with pytest.raises(ValueError, match=r'of shape \(B, 6, H, W\)'):
        classifier(means, channels_first=True)(torch.rand(2, D))


def test_in_faster_rcnn_by_cls_predictor_cfg():
    cfg = faster_rcnn()
    predictor = dict(type='kd_ext.PrototypeClassifier', class_means=torch.rand(3, 24))
    cfg.roi_head.bbox_head.cls_predictor_cfg = predictor
    model = build(cfg)
    layer = model.roi_head.bbox_head.fc_cls
    assert isinstance(layer, PrototypeClassifier)
    assert (layer.in_features, layer.out_features) == (32, 4)
    # Normal(std=0.01) of the head does not reach the projection
    assert layer.projection.std() > 0.1 and not layer.bias.any()
    terms = losses(model)
    terms['loss_cls'].backward()
    assert terms['loss_cls'].isfinite()
    assert layer.projection.grad.abs().sum() > 0
    # the plain student needs no class means
    predictor.pop('class_means')
    predictor['width'] = 24
    cfg.roi_head.bbox_head.cls_predictor_cfg = predictor
    plain = build(cfg)
    plain.load_state_dict(model.state_dict(), strict=True)
    data = plain.data_preprocessor(batch())
    assert len(plain.eval()(**data, mode='predict')) == 2
