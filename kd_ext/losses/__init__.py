from .logit_cka_loss import LogitCKALoss, logit_cka_loss
from .rcka_loss import RCKALoss, rcka_loss

__all__ = ['LogitCKALoss', 'RCKALoss', 'logit_cka_loss', 'rcka_loss']
