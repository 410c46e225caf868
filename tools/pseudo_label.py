"""Labels images that nobody labelled by a teacher: python tools/pseudo_label.py --help"""

from kd_ext.cli.pseudo_label import main

if __name__ == '__main__':
    main()
