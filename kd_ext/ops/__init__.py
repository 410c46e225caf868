"""A stand-in, in torch, for the compiled operators of an mmcv that has none (``mmcv-lite``).

mmcv compiles its operators into ``mmcv._ext``. ``mmcv-lite`` is the same package without that module, and
``import mmcv.ops``, which every detector of mmdet needs, fails there. :func:`provide_missing_ops` makes a module of
that name available, with what the CPU paths of common detectors call: NMS, soft NMS, RoIAlign and the sigmoid focal
loss. The numbers are those of the compiled operators to 1e-5, at a lower speed. Any other operator says how to compile
it.
"""

from kd_ext.ops.stand_in import provide_missing_ops

__all__ = ['provide_missing_ops']
