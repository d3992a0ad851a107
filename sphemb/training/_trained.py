"""A trained network, from its run's folder."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from sphemb.tasks import Apply, TaskState
from sphemb.training._checkpoints import newest_state
from sphemb.training._experiment import Experiment
from sphemb.training._workdir import load_class_names, load_config


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, ready to predict.

    Attributes:
        experiment: where it comes from.
        params: the network's parameters.
        task_state: the task's.
        step: how long it was trained.
        batch_stats: the moments of the network's batch normalisation, if it has any.
        class_names: of the classes it learned, from 0 on, where the data set has some.
    """

    experiment: Experiment
    params: Any
    task_state: TaskState
    step: int
    batch_stats: Any = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    @property
    def apply(self) -> Apply:
        """The network with its parameters bound."""
        return self.experiment.bound(self.params, self.batch_stats)


def load_run(workdir: str | pathlib.Path) -> Trained:
    """The newest checkpoint of a run.

    Args:
        workdir: the run's folder.

    Returns:
        The trained network.

    Raises:
        InputError: there is no run, or no checkpoint yet, or it is damaged.
    """
    workdir = pathlib.Path(workdir)
    # It may be somebody else's, and name folders that are none of its business.
    experiment = Experiment(load_config(workdir), prepares=False)
    state = newest_state(workdir, experiment.abstract_state)
    return Trained(
        experiment,
        state.params,
        state.task_state,
        int(state.step),
        state.batch_stats,
        load_class_names(workdir),
    )
