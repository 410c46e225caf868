"""Runs a model once on a blank image, to see its shapes."""

import contextlib

import torch

from kd_ext.build.modules import naming

PROBE_SIZE = 320  # the smallest common input of the detectors in mmdet


@contextlib.contextmanager
def probing(model):
    """Context in eval mode, without gradients; gives a blank image. Raises a ``ValueError`` if the model fails."""
    modes = {module: module.training for module in model.modules()}
    image = next(model.parameters()).new_zeros(1, 3, PROBE_SIZE, PROBE_SIZE)
    model.eval()
    try:
        with (
            torch.no_grad(),
            naming(
                f'a {type(model).__name__}',
                'of parts that fit one another and take an image',
                [image],
                'It has to train without distillation, too.',
            ),
        ):
            yield image
    finally:
        for module, mode in modes.items():
            module.training = mode


def blank_samples(model, inputs):
    """Data samples without annotations, of the type that ``model`` takes.

    Args:
        model (BaseModel): A detector, or a segmentor of mmseg.
        inputs (Tensor): Images (B, 3, H, W).

    Returns:
        list: One DetDataSample or SegDataSample per image.
    """
    shape = tuple(inputs.shape[-2:])
    meta = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape, scale_factor=(1.0, 1.0))
    if is_segmentor(model):
        from mmseg.structures import SegDataSample as Sample

        meta['padding_size'] = [0, 0, 0, 0]
    else:
        from mmdet.structures import DetDataSample as Sample
    return [Sample(metainfo=dict(meta, img_id=index)) for index in range(len(inputs))]


def is_segmentor(model):
    """Whether a model's class derives from mmseg; mmseg need not be installed."""
    return any(cls.__module__.partition('.')[0] == 'mmseg' for cls in type(model).__mro__)
