"""No loss that is not finite goes into the weights without its name."""

import torch
from mmengine.logging import MessageHub

from kd_ext.messages import expected


def iteration():
    """The runner's, or None where nothing trains."""
    return MessageHub.get_current_instance().runtime_info.get('iter')


def check_task_loss(losses, total, data_samples):
    """Looks at the student's own loss, ahead of the backward pass.

    Under float16 autocast nothing is said: the gradient scaler leaves such a
    step out.

    Args:
        losses (dict): As the detector gives them.
        total (Tensor): Their sum.
        data_samples (list): Of the batch.

    Raises:
        FloatingPointError: It is not finite; names the parts and the images.
    """
    kind = total.device.type
    if bool(torch.isfinite(total)) or (
            torch.is_autocast_enabled(kind)
            and torch.get_autocast_dtype(kind) == torch.float16):
        return
    bad = [name for name, value in losses.items() if 'loss' in name
           and not all(bool(torch.isfinite(part).all()) for part in
                       (value if isinstance(value, list) else [value]))]
    images = [str(path) for path in (getattr(sample, 'img_path', None)
                                     for sample in data_samples or ()) if path]
    raise FloatingPointError(expected(
        f'{" and ".join(f"student.{name}" for name in bad)} at iteration '
        f'{iteration()}', 'finite', f'{float(total.detach())}'
        + (f' on {", ".join(images)}' if images else ''),
        'Lower the learning rate, clip gradients, or look at the boxes of '
        'these images; --resume goes on from the last checkpoint.'))


def bad_weights(model):
    """``2 of 9 values of backbone.conv1.weight`` where some weights are not
    finite, else an empty string."""
    for name, value in model.named_parameters():
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            return f'{bad} of {value.numel()} values of {name}'
    return ''
