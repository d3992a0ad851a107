r"""Batch normalisation with moments that stay, or that are trained.

Shape letters: B images, H rows, W columns, C channels.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from sphemb._checks import check_axis_name, check_choice, check_number

BATCH_NORMS = ("fixed", "trained")


class BatchNorm(nn.Module):
    r"""Normalises every channel (Ioffe & Szegedy, ICML 2015).

    .. math:: y = \gamma\, (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta

    The batch of a proposal network is one large image, whose moments say little about
    the next one. So by default they are those that came with the weights, in training
    as well as after it (Kong & Fowlkes 2018, section 5); :math:`\gamma` and
    :math:`\beta` are parameters all the same.

    The arithmetic is float32 whatever the input: a running variance in bfloat16 has
    three digits, and the difference :math:`x - \mu` loses them.

    Attributes:
        mode: ``"fixed"``, or ``"trained"``: in training the moments are the batch's,
            over all devices, and their running averages are kept.
        epsilon: :math:`\epsilon`.
        momentum: weight of a new batch in the running averages.
        axis_name: of the mapped axis that the batch is spread over, None without one.
        zero_scale: start from :math:`\gamma = 0`.

    Raises:
        InputError: a setting that makes no layer.
    """

    mode: str = "fixed"
    epsilon: float = 1e-5
    momentum: float = 0.1
    axis_name: str | None = "batch"
    zero_scale: bool = False

    def __post_init__(self):
        check_choice("mode", self.mode, BATCH_NORMS)
        check_number("epsilon", self.epsilon, above=0)
        check_number("momentum", self.momentum, at_least=0, at_most=1)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Normalises.

        Args:
            x: [B, H, W, C].
            train: the batch's own moments are wanted, if this layer may take them.

        Returns:
            [B, H, W, C] in the dtype of ``x``.

        Raises:
            InputError: ``axis_name`` is not bound, in training.
        """
        shape = (x.shape[-1],)
        initial = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        scale = self.param("scale", initial, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        mean, var = running_mean.value, running_var.value
        wide = x.astype(jnp.float32)
        if train and self.mode == "trained" and not self.is_initializing():
            mean, var, count = self._batch_moments(wide)
            # The running variance is the unbiased one, as in the paper's Algorithm 2.
            unbiased = var * count / max(count - 1, 1)
            for running, new in ((running_mean, mean), (running_var, unbiased)):
                running.value += self.momentum * (new - running.value)
        y = (wide - mean) * (scale * lax.rsqrt(var + self.epsilon)) + bias
        return y.astype(x.dtype)

    def _batch_moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array, int]:
        """Mean, variance and number of values, over the batch of all devices."""
        check_axis_name("axis_name", self.axis_name)
        count = x.size // x.shape[-1]
        if self.axis_name is None:
            mean = x.mean((0, 1, 2))
            return mean, jnp.square(x - mean).mean((0, 1, 2)), count
        mean = lax.pmean(x.mean((0, 1, 2)), self.axis_name)
        var = lax.pmean(jnp.square(x - mean).mean((0, 1, 2)), self.axis_name)
        return mean, var, count * lax.axis_size(self.axis_name)
