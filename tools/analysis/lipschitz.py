"""Measures spectral norms between stages: python tools/analysis/lipschitz.py --help"""

from kd_ext.cli.lipschitz import main

if __name__ == '__main__':
    main()
