"""Packages that only some models need, and what brings them."""

import importlib.util

from kd_ext.errors import expected

# scope of the models: (extra of kd_ext, what it installs, modules)
EXTRAS = dict(mmseg=('seg', 'mmsegmentation', ('mmseg', 'ftfy', 'regex')))


def require_extra(name):
    """Does nothing where what ``name`` needs is installed, or is no extra.

    Args:
        name (str | None): A registry scope, or the distribution behind it.

    Raises:
        ModuleNotFoundError: Something is missing; says what to install.
    """
    for scope, (extra, distribution, modules) in EXTRAS.items():
        if name not in (scope, distribution):
            continue
        missing = [module for module in modules if not _is_there(module)]
        if missing:
            raise ModuleNotFoundError(
                expected(
                    f'{distribution}, which scope {scope!r} names,',
                    'installed with all that it imports',
                    f'no {", ".join(missing)}',
                    f"Install the extra: pip install 'kd_ext[{extra}]'",
                ),
                name=missing[0],
            )


def _is_there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # in sys.modules without a spec, or as None
        return False
