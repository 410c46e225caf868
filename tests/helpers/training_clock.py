"""Puts the iteration where a runner would."""

from mmengine.logging import MessageHub

INFO = ('iter', 'epoch', 'max_iters', 'max_epochs')


def put(iteration, max_iters=100, max_epochs=10):
    """As before a training step; None as where nothing trains."""
    hub = MessageHub.get_current_instance()
    if iteration is None:
        for key in INFO:
            hub.runtime_info.pop(key, None)
        return
    values = (iteration, iteration * max_epochs // max_iters, max_iters, max_epochs)
    hub.update_info_dict(dict(zip(INFO, values)))
