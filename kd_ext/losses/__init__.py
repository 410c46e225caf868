from kd_ext.losses.kl_loss import LogitKLLoss, kl_logits_loss
from kd_ext.losses.lipschitz_loss import LipschitzLoss, lipschitz_loss
from kd_ext.losses.logit_cka_loss import LogitCKALoss, logit_cka_loss
from kd_ext.losses.nckd_loss import NCKDLoss, nc1_loss, nc2_loss
from kd_ext.losses.nd_loss import NDLoss, nd_loss
from kd_ext.losses.rcka_loss import RCKALoss, rcka_loss
from kd_ext.losses.review_loss import ReviewKDLoss, hcl_loss

__all__ = [
    'LipschitzLoss',
    'LogitCKALoss',
    'LogitKLLoss',
    'NCKDLoss',
    'NDLoss',
    'RCKALoss',
    'ReviewKDLoss',
    'hcl_loss',
    'kl_logits_loss',
    'lipschitz_loss',
    'logit_cka_loss',
    'nc1_loss',
    'nc2_loss',
    'nd_loss',
    'rcka_loss',
]
