"""Scores that add up over batches, devices and hosts.

* :class:`AverageRecall`: mean best IoU, recall at .5 and three average recalls.
* :class:`InstanceCount`: the number of instances found against the true number.

Every metric is a small pytree of sums. ``from_batch`` runs under ``jax.jit``, ``merge``
adds two of them (in float64 and int64 once they are off the device), ``compute`` gives
the scores on the host. Since all fields are sums, ``jax.lax.psum`` merges over devices.
"""

from sphemb.metrics._count import InstanceCount
from sphemb.metrics._recall import AverageRecall

__all__ = ["AverageRecall", "InstanceCount"]
