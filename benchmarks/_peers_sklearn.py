"""scikit-learn's mean shift: another algorithm, for the time that it takes.

Its kernel is flat, its points stay where they are while the seeds climb, and it merges
the modes at the end.
"""

from __future__ import annotations

from sklearn.cluster import MeanShift

from benchmarks._cases import FORWARD, Case, Inputs
from benchmarks._peers import Peer, Program


def _forward(case: Case, inputs: Inputs) -> Program:
    bandwidth = inputs.concentration**-0.5
    shift = MeanShift(bandwidth=bandwidth, max_iter=case.num_steps)
    return Program(lambda: (shift.fit(inputs.points).cluster_centers_,))


PEERS = (
    Peer(
        name="scikit-learn",
        about=(
            "`MeanShift(bandwidth=kappa**-0.5, max_iter=T)`, every point a seed; a "
            "flat kernel on points that stay, hence time only"
        ),
        kinds={FORWARD: _forward},
        most_points=1024,
        only_time=True,
        any_points=False,
    ),
)
