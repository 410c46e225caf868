"""The console command ``kd_ext``, also ``python -m kd_ext.cli``: the tools of ``tools/`` by name."""

from __future__ import annotations

import argparse
import importlib
from typing import Sequence

# name: (module of kd_ext.cli, what it does)
COMMANDS = {
    'train': ('train', 'train a detector, distilled or plain'),
    'test': ('test', 'score the checkpoint of a detector'),
    'check': ('check', 'check a distillation before it is trained'),
    'report': ('report', 'make one page on a distillation: what was gained, where, at what cost'),
    'means': ('class_means', "compute class means of a teacher's embeddings, for ND and NCKD"),
    'pseudo-label': ('pseudo_label', "label images that nobody labelled by a teacher's detections"),
    'neural-collapse': ('neural_collapse', 'measure NC1, NC2 and NC3 of embeddings'),
    'lipschitz': ('lipschitz', 'measure the spectral norms between backbone stages'),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Calls the tool that the first argument names with the other arguments."""
    listed = '\n'.join(f'  {name:<17}{text}' for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog='kd_ext',
        description='Knowledge distillation for OpenMMLab detectors.',
        epilog=f'commands:\n{listed}\n\nkd_ext COMMAND --help lists the options of a command.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', help='one of the commands below')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, metavar='...', help='arguments of the command')
    args = parser.parse_args(argv)
    tool = importlib.import_module(f'kd_ext.cli.{COMMANDS[args.command][0]}')
    tool.main(args.arguments, f'kd_ext {args.command}')
