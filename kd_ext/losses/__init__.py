from .kl_loss import LogitKLLoss, kl_logits_loss
from .lipschitz_loss import LipschitzLoss, lipschitz_loss
from .logit_cka_loss import LogitCKALoss, logit_cka_loss
from .nckd_loss import NCKDLoss, nc1_loss, nc2_loss
from .nd_loss import NDLoss, nd_loss
from .rcka_loss import RCKALoss, rcka_loss
from .review_loss import ReviewKDLoss, hcl_loss

__all__ = [
    'LipschitzLoss', 'LogitCKALoss', 'LogitKLLoss', 'NCKDLoss', 'NDLoss',
    'RCKALoss', 'ReviewKDLoss', 'hcl_loss', 'kl_logits_loss',
    'lipschitz_loss', 'logit_cka_loss', 'nc1_loss', 'nc2_loss', 'nd_loss',
    'rcka_loss'
]
