"""One distilled FCOS on a fixed batch, whole or one process's half of it."""

import tiny
import torch
from mmengine.dist import all_reduce_params, get_world_size

ENTRIES = dict(
    nd=dict(type='kd_ext.NDLoss', at='embedding'),
    balanced=dict(type='kd_ext.NDLoss', at='embedding', class_balanced=True),
    nckd=dict(type='kd_ext.NCKDLoss', at='embedding'),
    kl=dict(type='kd_ext.LogitKLLoss', at='logits'))


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
    data['data_samples'][0].gt_instances = (
        data['data_samples'][0].gt_instances[:1])
    return data


def steps(part):
    """Terms, gradients and class means after each of three steps.

    In float64: a sum over one half and a sum over the whole round
    differently, and in float32 a ReLU near zero makes that a visible step in
    a gradient.

    Args:
        part (slice): The images of this process.

    Returns:
        list[dict[str, Tensor]]: Averaged over processes.
    """
    model = tiny.distill(teacher=tiny.fcos(8, width=24), **ENTRIES).double()
    model.train()
    for module in model.modules():  # batch statistics are not the subject
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    records = []
    for step in range(3):
        data = images(step)
        data = {key: value[part] for key, value in data.items()}
        losses = tiny.losses(model, data)
        terms = {key: value for key, value in losses.items()
                 if key.startswith('distill.loss_')}
        model.zero_grad()
        sum(terms.values()).backward()
        record = {f'grad {name}': p.grad.clone()
                  for name, p in model.named_parameters()
                  if p.grad is not None}
        record.update({key: value.detach() for key, value in terms.items()})
        record.update({f'state {key}': value.clone().double() for key, value
                       in model.distiller.named_buffers()})
        if get_world_size() > 1:
            for name in sorted(record):
                all_reduce_params([record[name]], op='mean')
        records.append(record)
    return records
