# Faster R-CNN with a narrow neck and head, for small images and CPUs;
# ``base_channels`` of the backbone and ``fc_out_channels`` set the size
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
model = dict(
    _scope_='mmdet',
    backbone=dict(
        depth=18,
        base_channels=64,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64),
    rpn_head=dict(
        in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=3),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=250),
        rcnn=dict(sampler=dict(num=128)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=150)),
)
