"""Checkpoints are read without running code from them.

``torch.load`` rebuilds tensors, plain values and what
:func:`kd_ext.compat.trust_mmengine_checkpoints` names, and refuses the rest:
a pickle can name any function to call.
"""

import re

from kd_ext.messages import expected

# torch's own, so that it holds for MMEngine's resuming as well
TRUST = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1'


def refusal(name, error, path=None):
    """The text for a file that ``torch.load`` refused to unpickle.

    Args:
        name (str): Of the setting that the file was given to.
        error (pickle.UnpicklingError): As raised by ``torch.load``.
        path (str, optional): The file.
    """
    what = reason(error)
    return expected(
        name, 'a readable checkpoint of tensors, plain values and the log of '
        'MMEngine', f'{path!r} ({what})' if path else f'a file where {what}',
        'To read more could run code from the file. If it is damaged, fetch '
        'or train it again; if you trust where it comes from, set the '
        f'environment variable {TRUST}.')


def reason(error):
    """Why ``torch.load`` refused a file, in a few words.

    Its own text goes on for lines and advises to run the file's code.
    """
    text = str(error)
    named = re.search(r'GLOBAL (\S+)', text)
    if named:
        return f'it names {named[1]}'
    text = text.rpartition('WeightsUnpickler error: ')[2].strip()
    return text.partition('\n')[0][:200]
