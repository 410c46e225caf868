"""Looks at a detector once, without images."""

import contextlib

import torch

PROBE_SIZE = 320  # the smallest common input of the detectors in mmdet


@contextlib.contextmanager
def probing(model):
    """Context in eval mode without gradients; gives a blank image."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield next(model.parameters()).new_zeros(1, 3, PROBE_SIZE,
                                                     PROBE_SIZE)
    finally:
        for module, mode in modes.items():
            module.training = mode


def blank_samples():
    """What goes with the blank image."""
    from mmdet.structures import DetDataSample
    size = (PROBE_SIZE, PROBE_SIZE)
    return [DetDataSample(metainfo=dict(
        img_id=0, img_shape=size, ori_shape=size, pad_shape=size,
        batch_input_shape=size, scale_factor=(1., 1.)))]
