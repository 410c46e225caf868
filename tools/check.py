"""Looks at a distillation before it runs: python tools/check.py --help"""

from kd_ext.cli.check import main

if __name__ == '__main__':
    main()
