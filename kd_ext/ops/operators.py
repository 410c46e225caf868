"""The operators of ``mmcv._ext`` that the stand-in has, by name."""

from __future__ import annotations

from kd_ext.ops.deformable_attention import ms_deform_attn_backward, ms_deform_attn_forward
from kd_ext.ops.focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from kd_ext.ops.nms import nms, softnms
from kd_ext.ops.roi_align import roi_align_backward, roi_align_forward

OPS = {
    op.__name__: op
    for op in (
        nms,
        softnms,
        roi_align_forward,
        roi_align_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        ms_deform_attn_forward,
        ms_deform_attn_backward,
    )
}
