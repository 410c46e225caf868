"""Knowledge distillation for OpenMMLab detectors.

Importing the package installs the shims of :mod:`kd_ext.compat` and nothing
else; MMEngine imports the modules themselves when a ``kd_ext.X`` type is
first looked up.
"""

from . import compat
from .version import __version__

compat.install()

__all__ = ['__version__']
