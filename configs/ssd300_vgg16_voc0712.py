_base_ = 'mmdet::pascal_voc/ssd300_voc0712.py'
# mmdet 3.3's own SSD cannot predict, see kd_ext/patches/ssd.py
custom_imports = dict(imports=['kd_ext'])
