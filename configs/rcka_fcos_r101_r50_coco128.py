_base_ = ['./rcka_fcos_r101_r50_coco.py']
data_root = '{{$COCO128_ROOT:data/coco128/}}'
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/detection_train2017.json',
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file='annotations/detection_val2017.json'
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=data_root + '/annotations/detection_val2017.json'
)
test_evaluator = val_evaluator
