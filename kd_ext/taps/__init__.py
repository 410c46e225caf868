from .recorder import ForwardDone, Recorder
from .tap import TAPS, ModuleTap, PartTap, build_tap

__all__ = ['ForwardDone', 'ModuleTap', 'PartTap', 'Recorder', 'TAPS',
           'build_tap']
