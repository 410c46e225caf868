"""Computes class means of a teacher's embeddings: python tools/class_means.py --help"""

from kd_ext.cli.class_means import main

if __name__ == '__main__':
    main()
