_base_ = './_base_/faster-rcnn_180k_coco.py'
