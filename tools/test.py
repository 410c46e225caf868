"""Scores the checkpoint of a detector: python tools/test.py --help"""

from kd_ext.cli.test import main

if __name__ == '__main__':
    main()
