"""All losses: every ``*_loss.py`` of this folder is imported, which registers it.

Its public functions (``*_loss``) and modules (``*Loss``) are attributes of this package.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

__all__: list[str] = []
for _file in pkgutil.iter_modules(__path__):
    if _file.name.endswith('_loss'):
        _module = importlib.import_module(f'{__name__}.{_file.name}')
        _public = {
            name: value
            for name, value in vars(_module).items()
            if name.endswith(('Loss', '_loss')) and name[0] != '_' and value.__module__ == _module.__name__
        }
        globals().update(_public)
        __all__ += sorted(_public)


def __getattr__(name: str) -> Any:  # type checkers cannot see the names above
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
