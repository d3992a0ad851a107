r"""Clusters frozen features, and scores them as a run of PiCIE is scored.

    python -m benchmarks.frozen_features --config=configs/picie_coco.py:small \
        --config.data.coco_dir=DIR [--map=stage7] [--split=test]

K-means on one map of the network with its pretrained weights, without recoloring or
boxes, on the images that the run would train on, and the scores that its
``summary.json`` would have. By default the map is the embedding at step 0, random
projections of all of the backbone's maps; ``--map`` names one of these.
"""

from __future__ import annotations

import argparse
import json
import time

import ml_collections
import numpy as np

from sphemb._checks import InputError
from sphemb.cli import one_line_errors, read_config
from sphemb.evaluation import evaluate
from sphemb.training import Experiment, Trained, replicate, update_task_state


def clustered(
    config: ml_collections.ConfigDict, *, map_name: str | None = None
) -> Trained:
    """A network as it is before its first step, and clusters of its images."""
    config = config.copy_and_resolve_references().unlock()
    config.task.views = 1
    config.task.num_overclusters = 0
    if map_name:
        maps = {m.name: m.channels for m in Experiment(config).model.feature_maps}
        if map_name not in maps:
            raise InputError(f"--map must be one of {', '.join(maps)}, got {map_name}")
        config.task.feature = map_name
        config.task.embedding_dim = maps[map_name]
    experiment = Experiment(config)
    state = update_task_state(experiment, replicate(experiment.start_state()))
    return Trained(experiment, state.params, state.task_state, 0, state.batch_stats)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--config", required=True, help="a PiCIE config")
    parser.add_argument("--map", help="of the backbone; by default the embedding")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    flags, overrides = parser.parse_known_args()
    config = read_config(flags.config, overrides).unlock()
    if "cluster_images" in config.task:
        del config.task.cluster_images  # there is one pass only: all images
    start = time.monotonic()
    trained = clustered(config, map_name=flags.map)
    scores = evaluate(trained, flags.split, num_samples=1).scores
    finite = {k: round(v, 4) for k, v in scores.items() if np.isfinite(v)}
    finite["seconds"] = round(time.monotonic() - start, 1)
    print(json.dumps(finite, indent=2))


if __name__ == "__main__":
    with one_line_errors():
        main()
