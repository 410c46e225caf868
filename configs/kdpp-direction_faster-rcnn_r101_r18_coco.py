# KD++ with half of ND: the direction alone. Needs the class means of
# kdpp_faster-rcnn_r101_r18_coco.py
_base_ = './kdpp_faster-rcnn_r101_r18_coco.py'
model = dict(distill=dict(nd=dict(norm=False)))
