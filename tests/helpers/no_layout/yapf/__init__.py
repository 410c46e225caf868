"""A stand-in for yapf in the processes of tests.

MMEngine lays out a config's text with yapf at every checkpoint, which takes longer than a tiny training. The text is
valid Python without it.
"""

__version__ = '0.40.2'
