"""Knowledge distillation for OpenMMLab detectors.

Importing the package installs the version shims of :mod:`kd_ext.patches`; MMEngine imports the modules themselves
when a ``kd_ext.X`` type is first looked up.
"""

from kd_ext.patches import install
from kd_ext.recipes import distill_config, distill_entries, part
from kd_ext.version import __version__

install()

__all__ = ['__version__', 'distill_config', 'distill_entries', 'part']
