r"""Kullback-Leibler divergence of class logits (KD).

Shapes: N rows (proposals, or the cells of a dense head), K classes.

.. math::
    L = \frac{T^2}{N} \sum_i \sum_k p_{ik} \log\frac{p_{ik}}{q_{ik}},\quad
    p_i = softmax(t_i / T),\quad q_i = softmax(s_i / T)

With ``use_sigmoid`` every class is a yes-or-no question of its own, :math:`p_{ik} = \sigma(t_{ik} / T)`, and its
two outcomes are summed over.

Source: Hinton et al., Distilling the Knowledge in a Neural Network, arXiv 1503.02531. mmrazor's ``KLDivergence``
computes the softmax form too; this one stays in fp32 under AMP, gives a zero that is in the graph where N is 0 (a
mean over nothing is nan), and has the sigmoid form.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from kd_ext.losses.checks import check_flag, check_pair, check_temperature, check_weight
from kd_ext.losses.precision import full_precision
from kd_ext.registry import MODELS


def binary_divergences(preds_S: Tensor, preds_T: Tensor) -> Tensor:
    """KL of the yes-or-no scores of logits, elementwise."""
    # log(1 - sigmoid(x)) is logsigmoid(-x), finite for any x
    yes, no = F.logsigmoid(preds_T), F.logsigmoid(-preds_T)
    return yes.exp() * (yes - F.logsigmoid(preds_S)) + no.exp() * (no - F.logsigmoid(-preds_S))


@full_precision
def kl_logits_loss(
    preds_S: Tensor,
    preds_T: Tensor,
    tau: float = 1.0,
    use_sigmoid: bool = False,
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """T^2 KL(teacher || student) of logits; see the module's formula.

    Args:
        preds_S: Student logits (N, K); only they get a gradient.
        preds_T: Teacher logits (N, K).
        tau: Temperature T > 0. T^2 keeps the size of the gradient.
        use_sigmoid: For heads that score each class by a sigmoid.
        avg_factor: Divisor in place of N, e.g. its mean over processes.

    Returns:
        Scalar >= 0 up to rounding errors, summed over classes, mean over the N rows; 0 where both give the same
        probabilities. Without rows, a zero that is still in the graph.

    Raises:
        TypeError: Not two tensors.
        ValueError: Not 2-D, not floating point, or of different shapes.

    Example:
        >>> import torch
        >>> logits = torch.randn(8, 20)
        >>> float(kl_logits_loss(logits, logits + 3)) < 1e-5
        True
    """
    check_pair(preds_S, preds_T, (2,), '(N, K)')
    if preds_S.numel() == 0:
        return preds_S.sum() * 0
    preds_S, preds_T = preds_S / tau, preds_T.detach() / tau
    if use_sigmoid:
        terms = binary_divergences(preds_S, preds_T)
    else:
        terms = F.kl_div(preds_S.log_softmax(-1), preds_T.log_softmax(-1), reduction='none', log_target=True)
    if avg_factor is None:
        avg_factor = len(preds_S)
    return terms.sum() * tau**2 / avg_factor


@MODELS.register_module()
class LogitKLLoss(nn.Module):
    """:func:`kl_logits_loss` times a weight.

    Args:
        tau: Temperature.
        use_sigmoid: For heads that score each class by a sigmoid; None takes what the detector's head does, or False.
        loss_weight: Factor on the whole.

    Raises:
        ValueError: ``tau`` is not positive, the weight is negative, or ``use_sigmoid`` is neither True nor False.
    """

    def __init__(self, tau: float = 1.0, use_sigmoid: bool | None = None, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.tau = check_temperature(tau)
        self.use_sigmoid = None if use_sigmoid is None else check_flag('use_sigmoid', use_sigmoid)
        self.loss_weight = check_weight('loss_weight', loss_weight)

    def setup(self, use_sigmoid: bool) -> None:
        """Takes from the detector's head how it scores, unless the config says so."""
        if self.use_sigmoid is None:
            self.use_sigmoid = bool(use_sigmoid)

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Weighted :func:`kl_logits_loss`.

        On several processes N is its mean over them, so that the mean of losses and gradients is that of one
        process with all rows.
        """
        avg_factor = None
        if get_world_size() > 1:
            avg_factor = torch.full((), float(len(preds_S)), device=preds_S.device)
            all_reduce(avg_factor, 'mean')
            avg_factor = avg_factor.clamp(min=1e-6)
        return self.loss_weight * kl_logits_loss(preds_S, preds_T, self.tau, bool(self.use_sigmoid), avg_factor)
