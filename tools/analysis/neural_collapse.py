"""Measures NC1, NC2 and NC3: python tools/analysis/neural_collapse.py --help"""

from kd_ext.cli.neural_collapse import main

if __name__ == '__main__':
    main()
