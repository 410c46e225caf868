import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.model import bias_init_with_prob
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope
from torch import nn

from kd_ext.class_means.classifier import PrototypeClassifier
from kd_ext.registry import MODELS
from tests.helpers.fresh_processes import fresh
from tests.helpers.tiny_detectors import _mmdet, batch, build, fcos, losses

WIDTH = 12


def tiny_dense(name, **head):
    """A one-stage detector of mmdet at toy widths."""
    cfg = Config.fromfile(_mmdet(name)).model
    cfg.backbone.update(depth=18, base_channels=4, init_cfg=None, frozen_stages=-1)
    cfg.neck.update(in_channels=[4, 8, 16, 32], out_channels=16)
    cfg.bbox_head.update(num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1, **head)
    return cfg


def with_prototypes(cfg, means=None, width=None, **settings):
    """The config with its head wrapped in PrototypeHead."""
    means = torch.rand(3, WIDTH) if means is None and not width else means
    classifier = dict(class_means=means, width=width, **settings)
    return {**cfg, 'bbox_head': dict(type='kd_ext.PrototypeHead', head=cfg['bbox_head'], classifier=classifier)}


DENSE = dict(
    fcos=(lambda: fcos(num_classes=3), 'conv_cls', 1),
    retina=(lambda: tiny_dense('_base_/models/retinanet_r50_fpn.py'), 'retina_cls', 9),
    atss=(lambda: tiny_dense('atss/atss_r50_fpn_1x_coco.py', norm_cfg=dict(type='BN')), 'atss_cls', 1),
    gfl=(lambda: tiny_dense('gfl/gfl_r50_fpn_1x_coco.py', norm_cfg=dict(type='BN')), 'gfl_cls', 1),
)


@pytest.mark.parametrize('name', DENSE)
def test_dense_heads(name):
    make, attribute, anchors = DENSE[name]
    model = build(with_prototypes(make()))
    layer = getattr(model.bbox_head, attribute)
    assert isinstance(layer, PrototypeClassifier)
    assert (layer.num_anchors, layer.out_features) == (anchors, 3 * anchors)
    # initialised by the head: the prior is in the bias alone
    prior = torch.full_like(layer.bias, bias_init_with_prob(0.01))
    torch.testing.assert_close(layer.bias, prior)
    assert layer.projection.std() > 0.1
    assert not layer.projection_bias.any()
    terms = losses(model)
    total = sum(sum(value) if isinstance(value, list) else value for key, value in terms.items() if 'loss' in key)
    total.backward()
    assert total.isfinite()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None, key
    assert layer.projection.grad.abs().sum() > 0
    # the checkpoint loads where no class means are
    plain = build(with_prototypes(make(), width=WIDTH), seed=1)
    plain.load_state_dict(model.state_dict(), strict=True)
    data = plain.data_preprocessor(batch())
    for detector in (plain, model):
        detector.eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(data['inputs']), model(data['inputs']))


def head(**cfg):
    classifier = dict(class_means=torch.rand(3, WIDTH))
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = MODELS.build(dict(type='kd_ext.PrototypeHead', head=cfg, classifier=classifier))
    built.init_weights()
    return built


HEADS = dict(
    yolox=dict(type='YOLOXHead', num_classes=3, in_channels=8, feat_channels=8),
    rtmdet=dict(
        type='RTMDetHead',
        num_classes=3,
        in_channels=8,
        feat_channels=8,
        norm_cfg=dict(type='BN'),
        anchor_generator=dict(type='MlvlPointGenerator', strides=[8, 16, 32]),
        with_objectness=False,
        bbox_coder=dict(type='DistancePointBBoxCoder'),
    ),
    rtmdet_sep=dict(
        type='RTMDetSepBNHead',
        num_classes=3,
        in_channels=8,
        feat_channels=8,
        anchor_generator=dict(type='MlvlPointGenerator', strides=[8, 16, 32]),
        with_objectness=False,
        norm_cfg=dict(type='BN'),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
    ),
    yolof=dict(
        type='YOLOFHead',
        num_classes=3,
        in_channels=8,
        anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], scales=[1, 2], strides=[32]),
    ),
    centernet=dict(type='CenterNetHead', num_classes=3, in_channels=8, feat_channels=8),
    vfnet=dict(type='VFNetHead', num_classes=3, in_channels=8, feat_channels=8, norm_cfg=dict(type='BN')),
)


@pytest.mark.parametrize('name', HEADS)
def test_other_dense_heads_put_out_maps(name):
    built = head(**HEADS[name])
    levels = dict(yolof=1, centernet=1, vfnet=5).get(name, 3)
    scores = built([torch.rand(2, 8, 4, 4)] * levels)[0]
    channels = 6 if name == 'yolof' else 3
    assert all(score.shape == (2, channels, 4, 4) for score in scores)
    layers = [m for m in built.modules() if isinstance(m, PrototypeClassifier)]
    assert len(layers) == (3 if name in ('yolox', 'rtmdet_sep') else 1)
    assert all((layer.bias < -2).all() for layer in layers)


def test_ssd_keeps_its_numbers_of_anchors():
    built = head(
        type='SSDHead',
        num_classes=3,
        in_channels=(8, 16),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            strides=[8, 16],
            ratios=([2], [2, 3]),
            scale_major=False,
            min_sizes=[8, 16],
            max_sizes=[16, 32],
            input_size=64,
        ),
    )
    assert isinstance(built.cls_convs, nn.ModuleList)
    assert [seq[-1].num_anchors for seq in built.cls_convs] == [4, 6]
    scores, _ = built([torch.rand(1, 8, 4, 4), torch.rand(1, 16, 2, 2)])
    assert [s.shape[1] for s in scores] == [16, 24]
    # three means, four logits: the background is learnt
    assert not built.cls_convs[0][-1].class_means[3].any()


@pytest.mark.parametrize('shared', [True, False])
def test_query_heads_stay_shared(shared):
    built = head(
        type='DINOHead',
        num_classes=3,
        embed_dims=8,
        share_pred_layer=shared,
        num_pred_layer=3,
        as_two_stage=True,
        sync_cls_avg_factor=True,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
    )
    branches = built.cls_branches
    assert isinstance(branches, nn.ModuleList) and len(branches) == 3
    assert len({id(b) for b in branches}) == (1 if shared else 3)
    assert branches[0].out_features == 3
    assert branches[0](torch.rand(2, 5, 8)).shape == (2, 5, 3)
    prior = torch.full((3,), bias_init_with_prob(0.01))
    torch.testing.assert_close(branches[2].bias.detach(), prior)


def test_detr_scores_all_decoder_layers_at_once():
    built = head(type='DETRHead', num_classes=3, embed_dims=8)
    scores, _ = built(torch.rand(2, 1, 5, 8))
    assert scores.shape == (2, 1, 5, 4)


def test_resolves_in_a_fresh_process_without_custom_imports():
    code = """
import torch
from mmengine.registry import init_default_scope
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
register_all_modules()
head = MODELS.build(dict(
    type='Shared2FCBBoxHead', num_classes=3, in_channels=8,
    fc_out_channels=8, roi_feat_size=1, cls_predictor_cfg=dict(
        type='kd_ext.PrototypeClassifier', class_means=torch.rand(3, 8))))
head = MODELS.build(dict(type='kd_ext.PrototypeHead', head=dict(
    type='FCOSHead', num_classes=3, in_channels=32, feat_channels=32),
    classifier=dict(class_means=torch.rand(3, 8)), train_cfg=None))
print(type(head.conv_cls).__name__)
"""
    assert 'PrototypeClassifier' in fresh(code)


def test_train_cfg_goes_to_the_inner_head():
    cfg = with_prototypes(fcos(num_classes=3))
    model = build({**cfg, 'test_cfg': dict(nms_pre=7, score_thr=0.0)})
    assert model.bbox_head.test_cfg['nms_pre'] == 7
    # the config itself is left as it was
    with DefaultScope.overwrite_default_scope('mmdet'):
        again = MMENGINE_MODELS.build(copy.deepcopy(cfg))
    assert type(again.bbox_head).__name__ == 'FCOSHead'


def test_heads_that_do_not_fit_are_named():
    anchors = dict(type='AnchorGenerator', ratios=[1.0], scales=[1], strides=[32])
    octaves = dict(type='AnchorGenerator', ratios=[1.0], strides=[32], octave_base_scale=1, scales_per_octave=1)
    with pytest.raises(ValueError, match='layer of YOLOV3Head to be one of'):
        head(type='YOLOV3Head', num_classes=3, in_channels=[8, 8, 8], out_channels=[8, 8, 8])
    with pytest.raises(ValueError, match='GARetinaHead.*but got MaskedConv'):
        head(
            type='GARetinaHead',
            num_classes=3,
            in_channels=8,
            feat_channels=8,
            approx_anchor_generator=octaves,
            square_anchor_generator=anchors,
        )
    with pytest.raises(ValueError, match='AnchorHead to be 3 logits'):
        # another layer than that of the classes
        MODELS.build(
            dict(
                type='kd_ext.PrototypeHead',
                layer='conv_reg',
                classifier=dict(class_means=torch.rand(3, 8)),
                head=dict(type='mmdet.AnchorHead', num_classes=3, in_channels=8, anchor_generator=anchors),
            )
        )
