"""Distilled detectors on a fixed batch, whole or one process's half of it."""

import importlib
from unittest import mock

import torch
from mmengine import MessageHub
from mmengine.dist import all_reduce_params, get_world_size

from tests.helpers import detector_zoo as zoo
from tests.helpers import tiny_detectors as tiny

CONNECTED = dict(at='pre_relu', connector=dict(type='kd_ext.ConvBNConnector'))
ND = dict(type='kd_ext.NDLoss', at='embedding')
NCKD = dict(type='kd_ext.NCKDLoss', at='embedding')
KL = dict(type='kd_ext.LogitKLLoss', at='logits')

# (student, teacher, entries): equal on one process and on several
CASES = dict(
    dense=('FCOS', dict(nd=ND, balanced=dict(ND, class_balanced=True), nckd=NCKD, kl=KL)),
    roi=(
        'Faster R-CNN',
        dict(
            nd=ND,
            balanced=dict(ND, class_balanced=True, include_background=False),
            nckd=dict(NCKD, include_background=True),
            kl=KL,
        ),
    ),
    queries=('DETR', dict(nd=ND, nckd=NCKD)),  # the teacher reads its own
    maps=(
        'FCOS',
        dict(
            lipschitz=dict(type='kd_ext.LipschitzLoss', **CONNECTED),
            relative=dict(type='kd_ext.LipschitzLoss', at='backbone', relative=True),
            ofd=dict(
                type='mmrazor.OFDLoss',
                at='pre_relu',
                connector='lipschitz',
                mul_factor=1e3,
                teacher_connector=dict(type='kd_ext.RunningMarginConnector'),
            ),
            margins=dict(
                type='mmrazor.OFDLoss',
                at='pre_relu',
                mul_factor=1e3,
                teacher_connector=dict(type='mmrazor.OFDTeacherConnector'),
            ),
            review=dict(type='kd_ext.ReviewKDLoss', at='neck', mid_channels=8),
            cwd=dict(type='mmrazor.ChannelWiseDivergence', at='neck'),
        ),
    ),
    weighted=(
        'DETR',
        dict(  # its task loss is float64, and equal as well
            nd=dict(ND, balance=0.2, schedule=dict(warmup=4)),
            nckd=dict(NCKD, schedule=dict(begin=1)),
            cwd=dict(type='mmrazor.ChannelWiseDivergence', at='neck', balance=0.5),
        ),
    ),
)
# what relates the images of one process: the mean over processes
APART = dict(
    intra=('FCOS', dict(rcka=tiny.rcka())),
    inter=('FCOS', dict(rcka=tiny.rcka(inter_weight=2.0, center=False))),
    pkd=('FCOS', dict(pkd=dict(type='mmrazor.PKDLoss', at='neck'))),
    lcka=('Faster R-CNN', dict(lcka=dict(type='kd_ext.LogitCKALoss', at='logits'))),
)


def detectors(name):
    """Student and teacher config of a case."""
    if name == 'FCOS':
        return tiny.fcos(), tiny.fcos(8, width=24)
    if name == 'DETR':
        pair = zoo.detector(name), zoo.detector(name, 8)
        for model in pair:  # or its task loss is each process's own
            model.bbox_head.sync_cls_avg_factor = True
        return pair
    pair = tiny.faster_rcnn(), tiny.faster_rcnn(8, width=24)
    for model in pair:  # few proposals, all of them sampled
        model.train_cfg.rpn_proposal.update(nms_pre=40, max_per_img=30)
        model.train_cfg.rcnn.sampler.update(num=400, pos_fraction=1.0)
    return pair


def images(step):
    """Four images of one size; in step 1 the last two have no box."""
    data = tiny.batch(count=1, seed=step)
    for index in range(1, 4):
        more = tiny.batch(count=1, seed=10 * step + index)
        data['inputs'] += more['inputs']
        data['data_samples'] += more['data_samples']
    for sample in data['data_samples'][2:] if step == 1 else ():
        sample.gt_instances = sample.gt_instances[:0]
    # unlike numbers of regions on the two processes
    data['data_samples'][0].gt_instances = data['data_samples'][0].gt_instances[:1]
    for sample in data['data_samples']:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.double()
    return data


def nms_in_float():
    """mmcv's NMS knows no float64: it says which boxes stay, no more."""
    op = importlib.import_module('mmcv.ops.nms').NMSop
    apply = op.apply
    return mock.patch.object(op, 'apply', lambda boxes, scores, *rest: apply(boxes.float(), scores.float(), *rest))


def build(case):
    """The model of a case, where rounding and chance play no part.

    In float64: a sum over one half and a sum over the whole round
    differently, and in float32 a ReLU near zero makes that a visible step in
    a gradient. No dropout, and BN by its running statistics.
    """
    name, entries = {**CASES, **APART}[case]
    model = tiny.distill(*detectors(name), **entries).double()
    model.train()
    model.student.eval()
    for module in model.distiller.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model


def steps(case, part):
    """Terms, gradients and all that is kept, after each of three steps.

    Args:
        case (str): In ``CASES`` or ``APART``.
        part (slice): The images of this process.

    Returns:
        list[dict[str, Tensor]]: Averaged over processes.
    """
    model, records = build(case), []
    for step in range(3):
        MessageHub.get_current_instance().update_info('iter', step)
        data = {key: value[part] for key, value in images(step).items()}
        with nms_in_float():
            losses = tiny.losses(model, data)
        terms = {key: value for key, value in losses.items() if key.startswith('distill.loss_')}
        model.zero_grad()
        sum(terms.values()).backward()
        record = {f'grad {name}': p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        record.update(
            {
                key: value.detach()
                for key, value in losses.items()
                if key.startswith(('distill.loss', 'distill.factor'))
            }
        )
        record.update({f'state {key}': value.clone().double() for key, value in model.distiller.named_buffers()})
        if get_world_size() > 1:
            for name in sorted(record):
                all_reduce_params([record[name]], op='mean')
        records.append(record)
    MessageHub.get_current_instance().runtime_info.pop('iter')
    return records
