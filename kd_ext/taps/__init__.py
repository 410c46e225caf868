from .heads import find_head, run_own_loss
from .reading import Reading
from .recorder import ForwardDone, Recorder
from .regions import Regions
from .tap import TAPS, ModuleTap, PartTap, RegionTap, build_tap
from .watch import Watch

__all__ = ['ForwardDone', 'ModuleTap', 'PartTap', 'Reading', 'Recorder',
           'RegionTap', 'Regions', 'TAPS', 'Watch', 'build_tap', 'find_head',
           'run_own_loss']
