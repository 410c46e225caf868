"""Knowledge distillation for OpenMMLab detectors.

Importing the package installs the version shims of :mod:`kd_ext.patches`; MMEngine imports the modules themselves
when a ``kd_ext.X`` type is first looked up.
"""

from importlib.util import find_spec

# mmrazor imports joblib, which it asks pip for nowhere, and ordered-set
missing = [
    name
    for name in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmrazor', 'joblib', 'ordered_set')
    if find_spec(name) is None
]
if missing:
    raise ModuleNotFoundError(
        f'Expected the packages that kd_ext extends to be installed, but got an environment without '
        f"{', '.join(missing)}. pip install 'kd_ext[lite]' brings all of them without a compiler, 'kd_ext[mim]' with "
        'compiled operators; python tools/doctor.py names the command for each.',
        name=missing[0],
    )

from kd_ext.patches import install  # noqa: E402
from kd_ext.recipes import distill_config, distill_entries, part  # noqa: E402
from kd_ext.version import __version__  # noqa: E402

install()

__all__ = ['__version__', 'distill_config', 'distill_entries', 'part']
