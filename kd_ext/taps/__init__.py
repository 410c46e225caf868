from kd_ext.taps.heads import Regions, find_head, run_own_loss
from kd_ext.taps.pre_relu import PreReluTap
from kd_ext.taps.reading import Reading
from kd_ext.taps.recorder import Recorder
from kd_ext.taps.tap import TAPS, ModuleTap, PartTap, RegionTap, build_tap
from kd_ext.taps.watch import Watch

TAPS['pre_relu'] = PreReluTap

__all__ = ['ModuleTap', 'PartTap', 'PreReluTap', 'Reading', 'Recorder', 'RegionTap', 'Regions', 'TAPS', 'Watch']
__all__ += ['build_tap', 'find_head', 'run_own_loss']
