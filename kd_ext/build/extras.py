"""Optional packages that only some models need, and the extras that install them."""

from __future__ import annotations

import importlib.util

from kd_ext.errors import expected

# registry scope: (extra of kd_ext, distribution, modules it has to provide)
EXTRAS = dict(mmseg=('seg', 'mmsegmentation', ('mmseg', 'ftfy', 'regex')))


def require_extra(name: str | None) -> None:
    """Raises a ``ModuleNotFoundError`` that says what to install if an extra is incomplete.

    ``name`` is a registry scope or a distribution; names without an extra pass.
    """
    for scope, (extra, distribution, modules) in EXTRAS.items():
        if name not in (scope, distribution):
            continue
        missing = [module for module in modules if not _is_there(module)]
        if missing:
            what, rule = f'{distribution}, which scope {scope!r} names,', 'installed with all that it imports'
            remedy = f"Install the extra: pip install 'kd_ext[{extra}]'"
            raise ModuleNotFoundError(expected(what, rule, f'no {", ".join(missing)}', remedy), name=missing[0])


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # find_spec, if sys.modules holds it without a spec
        return False
