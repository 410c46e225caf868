"""Knowledge distillation for OpenMMLab detectors.

Importing the package installs the shims of :mod:`kd_ext.patches.versions`; MMEngine imports the modules themselves
when a ``kd_ext.X`` type is first looked up.
"""

from kd_ext.patches import versions as compat
from kd_ext.recipes import distill_config, distill_entries
from kd_ext.version import __version__

compat.install()

__all__ = ['__version__', 'distill_config', 'distill_entries']
