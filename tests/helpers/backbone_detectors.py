"""FCOS on backbones of every family, at toy widths."""

import torch
from mmengine.config import ConfigDict

from tests.helpers.tiny_detectors import build, fcos


def resnet(depth, base=4, **changes):
    return dict(type='ResNet', depth=depth, base_channels=base, **changes)


def hrnet(width=4):
    """Four branches, one block each."""
    stages = {
        f'stage{n}': dict(
            num_modules=1,
            num_branches=n,
            block='BASIC',
            num_blocks=(1,) * n,
            num_channels=tuple(width * 2**i for i in range(n)),
        )
        for n in (2, 3, 4)
    }
    return dict(
        type='HRNet',
        extra=dict(
            stage1=dict(num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(1,), num_channels=(width,)),
            **stages,
        ),
    )


BACKBONES = {
    'R18': resnet(18),
    'R34': resnet(34),
    'R50': resnet(50, out_indices=(0, 1, 2, 3)),
    'R50 of 8, 16, 32': resnet(50, out_indices=(1, 2, 3)),
    'R18 of 4, 8': resnet(18, out_indices=(0, 1)),
    'R18 of 16, 32': resnet(18, out_indices=(2, 3)),
    'X50': dict(type='ResNeXt', depth=50, base_channels=8, groups=2, base_width=4),
    'Res2Net': dict(type='Res2Net', depth=50, base_channels=16, scales=2, base_width=32),
    'ResNeSt': dict(type='ResNeSt', depth=50, base_channels=8, stem_channels=8, base_width=32),
    'RegNet': dict(
        type='RegNet',
        base_channels=8,
        stem_channels=8,
        arch=dict(w0=8, wa=8.0, wm=2.0, group_w=8, depth=6, bot_mul=1.0),
    ),
    'EfficientNet': dict(type='EfficientNet', arch='b0', out_indices=(2, 3, 4, 5)),
    'HRNet': hrnet(),
    'MobileNetV2': dict(type='MobileNetV2', widen_factor=0.125, out_indices=(1, 2, 4, 7)),
    'Swin': dict(type='SwinTransformer', embed_dims=8, window_size=4, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8)),
    'PVT': dict(type='PyramidVisionTransformer', embed_dims=8, num_layers=(1, 1, 1, 1), num_heads=(1, 2, 2, 4)),
    'PVTv2': dict(type='PyramidVisionTransformerV2', embed_dims=8, num_layers=(1, 1, 1, 1), num_heads=(1, 2, 2, 4)),
    'CSPNeXt': dict(type='CSPNeXt', widen_factor=0.125, deepen_factor=0.167, out_indices=(2, 3, 4)),
    'CSPDarknet': dict(type='CSPDarknet', widen_factor=0.125, deepen_factor=0.33, out_indices=(2, 3, 4)),
    'SSDVGG': dict(type='SSDVGG', depth=16, out_indices=(3, 4)),
}


def detector(name):
    """FCOS on a backbone, with a neck of its widths."""
    cfg = fcos()
    cfg.backbone = ConfigDict(BACKBONES[name])
    with torch.no_grad():
        widths = [maps.shape[1] for maps in build(cfg.backbone)(torch.zeros(2, 3, 64, 64))]
    cfg.neck.update(in_channels=widths, start_level=int(len(widths) == 4))
    return cfg
