"""Knowledge distillation for OpenMMLab detectors.

Importing the package installs the shims of :mod:`kd_ext.compat`; MMEngine
imports the modules themselves when a ``kd_ext.X`` type is first
looked up.
"""

from . import compat
from .recipes import distill_config, distill_entries
from .version import __version__

compat.install()

__all__ = ['__version__', 'distill_config', 'distill_entries']
