"""Where the tests find files: in the repository, and outside of it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / 'tests/reference'  # arrays, see the README there
# real images: the folders coco128 and bccd; tests of them are skipped without
DATA = Path(os.environ.get('KD_EXT_TEST_DATA') or ROOT / 'data')
COCO128, BCCD = DATA / 'coco128', DATA / 'bccd'
# the generated data set that the fixture ``shapes`` makes
FEW_SHAPES = ('--train', '8', '--val', '4', '--size', '64', '64')
