# NC3's student: it scores by cosines to the teacher's class means. They are in
# its checkpoint: this config, which tests and deploys it, needs no file
_base_ = './_base_/faster-rcnn_180k_coco.py'
model = dict(
    roi_head=dict(
        bbox_head=dict(
            cls_predictor_cfg=dict(
                type='kd_ext.PrototypeClassifier', class_means=None, width=1024
            )
        )
    )
)
custom_imports = dict(imports=['kd_ext'])
