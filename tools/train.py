"""Trains a detector, distilled or plain: python tools/train.py --help"""

from kd_ext.cli.train import main

if __name__ == '__main__':
    main()
