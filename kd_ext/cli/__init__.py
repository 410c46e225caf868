"""The command line: a module for each tool, and what they share.

``main()`` of a tool's module is what ``tools/*.py`` and the console command ``kd_ext`` call.
"""

import warnings

# raised for each mmdet:: config; a user can do nothing about it
warnings.filterwarnings('ignore', 'pkg_resources is deprecated')
