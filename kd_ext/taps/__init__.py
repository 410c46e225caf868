from .heads import find_head, run_own_loss
from .pre_relu import PreReluTap
from .reading import Reading
from .recorder import ForwardDone, Recorder
from .regions import Regions
from .tap import TAPS, ModuleTap, PartTap, RegionTap, build_tap
from .watch import Watch

TAPS['pre_relu'] = PreReluTap

__all__ = ['ForwardDone', 'ModuleTap', 'PartTap', 'PreReluTap', 'Reading',
           'Recorder', 'RegionTap', 'Regions', 'TAPS', 'Watch', 'build_tap',
           'find_head', 'run_own_loss']
