"""Makes one page on a distillation: python tools/report.py --help"""

from kd_ext.cli.report import main

if __name__ == '__main__':
    main()
