"""From a configuration, or a run's folder, to its parts: network, task, state."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import chex
import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax import lax

import sphemb.data
import sphemb.models
import sphemb.tasks
from sphemb._checks import VOID, InputError, check_choice
from sphemb._model_files import (
    ModelCard,
    ModelFile,
    model_path,
    read_model_file,
    write_model_file,
)
from sphemb.tasks import Apply, LabelMap, Maps, Task, TaskState
from sphemb.training._components import call, check_config, component, entries
from sphemb.training._step import (
    TrainState,
    TrainStep,
    make_optimizer,
    make_train_step,
    poly_schedule,
)
from sphemb.training._workdir import load_class_names, load_config, newest_state, plain

_PADDING = -1  # the index of an example that fills up a batch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundNetwork:
    """A network with its parameters: a function of images that is also a pytree."""

    params: optax.Params
    batch_stats: chex.ArrayTree
    network: Callable[..., Maps] = dataclasses.field(metadata={"static": True})

    def __call__(self, image: jax.Array, mask: jax.Array | None = None) -> Maps:
        """The maps of images [B, H, W, 3], with a mask [B, H, W] if they are padded."""
        return self.network(self.params, self.batch_stats, image, mask)


class _Chosen:
    """Some examples of a source."""

    def __init__(self, source: sphemb.data.ExampleSource, indices: list[int]):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[self._indices[index]]

    def size(self, index: int) -> tuple[int, int]:
        return self._source.size(self._indices[index])


@dataclasses.dataclass(frozen=True)
class BoundedLabels(grain.transforms.Map):
    """Refuses an example with a label outside the task's classes."""

    maps: tuple[LabelMap, ...]
    data: str

    # Grain declares its base method without a result.
    def map(  # pyrefly: ignore[bad-override]
        self, element: dict[str, Any]
    ) -> dict[str, Any]:
        """Returns the example unchanged."""
        for one in self.maps:
            if one.below is None or one.name not in element:
                continue
            high = int(np.max(element[one.name], initial=VOID))
            if high >= one.below:
                raise InputError(
                    f"{one.name} of example {element.get('name', '')!r} of "
                    f"config.data.name {self.data} must be -1 (void) or one of the "
                    f"classes 0 to {one.below - 1} that config.task.{one.setting} "
                    f"gives, got {high}: raise config.task.{one.setting}"
                )
        return element


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The parts that a configuration names, each created at its first use.

    Attributes:
        config: see ``configs/common.py`` for its sections.
        prepares: whether data sets may be prepared in a folder that it names.
    """

    config: ml_collections.ConfigDict
    prepares: bool = True

    def __post_init__(self):
        check_config(self.config)

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network."""
        has = ("init", "apply", "stride")
        return component(sphemb.models, self.config.model, "config.model", has=has)

    @property
    def stride(self) -> int:
        """The sides of the network's images are multiples of it."""
        return self.model.stride

    @functools.cached_property
    def task(self) -> Task:
        """The task."""
        has = ("prediction", "loss", "predict", "metrics")
        return component(sphemb.tasks, self.config.task, "config.task", has=has)

    @property
    def multiple(self) -> int:
        """Whole images are padded to multiples of it; maps do not depend on it."""
        return math.lcm(self.stride, self.config.evaluation.size_multiple)

    @functools.cached_property
    def _dataset(self) -> Any:
        known, section = sphemb.data.DATASETS, self.config.data
        reads = sphemb.data.only_prepared()
        with contextlib.nullcontext() if self.prepares else reads:
            return component(known, section, "config.data", has=("source",))

    @property
    def reading(self) -> sphemb.data.Reading:
        """How image files are read, in training and prediction."""
        names = ("page", "intensity")
        settings = {n: self.config.data[n] for n in names if n in self.config.data}
        return sphemb.data.Reading(**settings)

    @property
    def measured_reading(self) -> sphemb.data.Reading:
        """The same, with intensity ``"range"`` measured in the training images."""
        return self._dataset.reading

    @functools.cached_property
    def _sources(self) -> dict[str, sphemb.data.ExampleSource]:
        return {}

    def source(self, split: str) -> sphemb.data.ExampleSource:
        """The examples of ``"train"``, ``"validation"`` or ``"test"``."""
        if split not in self._sources:
            source = self._dataset.source(split)
            if self.config.loader.skip_bad:
                source = sphemb.data.SkippingSource(source)
            self._sources[split] = source
        return self._sources[split]

    def usable(self, split: str, number: int | None = None) -> list[int]:
        """The indices of the first ``number`` usable images of a split."""
        source = self.source(split)
        number = len(source) if number is None else number
        if isinstance(source, sphemb.data.SkippingSource):
            return source.usable(number)
        return list(range(min(number, len(source))))

    @property
    def skipped(self) -> list[str]:
        """What was wrong with the examples that were skipped so far."""
        skipped = (getattr(s, "skipped", {}) for s in self._sources.values())
        return [reason for reasons in skipped for reason in reasons.values()]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the data set's classes, from 0 on, if it has names."""
        return tuple(getattr(self.source("train"), "class_names", ()))

    def names(self, batch: Mapping[str, np.ndarray]) -> list[str]:
        """The names of the training images of a batch."""
        source, there = self.source("train"), np.asarray(batch["valid"])
        return [str(source[int(i)]["name"]) for i in batch["index"][there]]

    @property
    def batch_size(self) -> int:
        """Images of a training step, on all devices."""
        on_each = self.config.loader.images_per_device
        return on_each * jax.device_count() or self.config.loader.batch_size

    @property
    def batch_scale(self) -> float:
        """Images of a step over ``config.loader.batch_size``."""
        return self.batch_size / self.config.loader.batch_size

    @functools.cached_property
    def num_steps(self) -> int:
        """Training steps: those of ``config.train``, or those of its epochs."""
        train = self.config.train
        if train.num_steps:
            images = train.num_steps * self.config.loader.batch_size
            return -(-images // self.batch_size)
        steps = train.num_epochs * len(self.source("train")) / self.batch_size
        return max(1, math.ceil(round(steps, 6)))

    def times_due(self, every: int, step: int) -> int:
        """How often an action every so many batches has been due after a step."""
        if not every:
            return 0
        return step * self.batch_size // (every * self.config.loader.batch_size)

    def train_batches(self) -> grain.DatasetIterator:
        """This host's endless stream of training batches, shuffled and augmented.

        They are compact, see `sphemb.data.make_loader`.
        """
        if self.batch_size % jax.device_count():
            raise InputError(
                "config.loader.batch_size must be divisible by the number of devices, "
                f"{jax.device_count()}, got {self.batch_size}: "
                "config.loader.images_per_device=1 adapts the settings to one image on "
                "each"
            )
        return iter(
            self._loader(
                self.source("train"),
                self.batch_size // jax.process_count(),
                *self._label_checks("train"),
                *self._augmentation,
                seed=self.config.seed,
                shuffle=True,
                repeat=True,
                compact=True,
            )
        )

    def _loader(
        self, source: Any, batch_size: int, *transforms: Any, **settings: Any
    ) -> Any:
        """This host's share of some examples, in batches."""
        return sphemb.data.make_loader(
            source,
            batch_size=batch_size,
            shard_index=jax.process_index(),
            shard_count=jax.process_count(),
            transforms=transforms,
            num_threads=self.config.loader.num_threads,
            **settings,
        )

    def _label_checks(self, split: str) -> tuple[grain.transforms.Map, ...]:
        """The first transformation of an example of a split."""
        read = (m for m in self.task.label_maps if m.learned or split != "train")
        maps = tuple(m for m in read if m.below is not None)
        return (BoundedLabels(maps, self.config.data.name),) if maps else ()

    @functools.cached_property
    def _augmentation(self) -> tuple[Any, ...]:
        section, known = self.config.augmentation, sphemb.data.AUGMENTATIONS
        where, has = "config.augmentation", ("map|random_map",)
        seen = getattr(self.task, "image_scale", 1.0)
        if seen != 1.0:
            if "scale" not in section:
                raise InputError(
                    "config.augmentation must have a scale, because config.task "
                    f"resizes images by {seen:.3g}, got none"
                )
            section = section.copy_and_resolve_references()
            section.scale = tuple(seen * factor for factor in section.scale)
        return (component(known, section, where, has=has),) if section.name else ()

    def one_pass(
        self, split: str, indices: list[int], *, batch_size: int
    ) -> Iterator[dict[str, Any]]:
        """One pass over this host's images of a split without augmentation."""
        source, checks = self.source(split), self._label_checks(split)
        buckets = sphemb.data.size_buckets(source, indices, multiple=self.multiple)
        for size, chosen in buckets.items():
            pad = sphemb.data.PadExample(size)
            yield from self._batches(source, chosen, batch_size, *checks, pad)

    def train_pass(self, number: int) -> Iterator[dict[str, Any]]:
        """Batches of one pass over this host's training images, for `Task.update`."""
        order = np.random.default_rng([self.config.seed, number])
        indices = order.permutation(self.usable("train")).tolist()
        size = self.batch_size // jax.process_count()
        fixed = [a for a in self._augmentation if isinstance(a, grain.transforms.Map)]
        if fixed:
            steps = (*self._label_checks("train"), *fixed)
            return self._batches(self.source("train"), indices, size, *steps)
        return self.one_pass("train", indices, batch_size=size)

    def _batches(
        self, source: Any, chosen: list[int], batch_size: int, *transforms: Any
    ) -> Iterator[dict[str, Any]]:
        """This host's batches of some examples, with their indices in the source."""
        places = np.array([*chosen, _PADDING])
        for batch in self._loader(_Chosen(source, chosen), batch_size, *transforms):
            yield {**batch, "index": places[batch["index"]]}

    @functools.cached_property
    def schedule(self) -> optax.Schedule:
        """The learning rate of an update."""
        settings, scale = self.config.optimizer, self.batch_scale
        return poly_schedule(
            settings.learning_rate * scale,
            -(-self.num_steps // settings.accumulate),
            power=settings.power,
            warmup_steps=math.ceil(settings.warmup_steps / scale),
        )

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimizer."""
        settings = entries(self.config.optimizer)
        for name in ("learning_rate", "power", "warmup_steps"):
            del settings[name]  # the schedule's
        # Its length needs the data, without which a run is loaded: at its first use.
        make = functools.partial(make_optimizer, lambda update: self.schedule(update))
        return call(make, settings, "config.optimizer")

    @property  # not cached: the first use may be within a trace
    def keys(self) -> dict[str, chex.PRNGKey]:
        """The run's random keys, one for each use."""
        uses = ("params", "task_state", "step", "update")
        keys = jax.random.split(jax.random.key(self.config.seed), len(uses))
        return dict(zip(uses, keys, strict=True))

    @property
    def train_step(self) -> TrainStep:
        """The step of one device, see `make_train_step`."""
        key = self.keys["step"]
        return make_train_step(self.task, self.training_network, self.optimizer, key)

    @property
    def update_every(self) -> int:
        """Steps between two updates of the task's state, see `Task`."""
        every = self.task.update_every
        if every is None:
            return -(-len(self.source("train")) // self.batch_size)
        return max(1, math.ceil(every / self.batch_scale)) if every > 0 else every

    def network(
        self,
        params: optax.Params,
        batch_stats: chex.ArrayTree,
        image: jax.Array,
        mask: jax.Array | None = None,
    ) -> Maps:
        """The network as a function of its variables, see `models.apply_masked`."""
        variables = {"params": params, "batch_stats": batch_stats}
        return sphemb.models.apply_masked(self.model, variables, image, mask)

    def bound(self, params: optax.Params, batch_stats: chex.ArrayTree) -> BoundNetwork:
        """The network with its parameters; it is compiled once for each size."""
        return BoundNetwork(params, batch_stats, self._compiled_network)

    @functools.cached_property
    def _compiled_network(self) -> Callable[..., Maps]:
        return jax.jit(self.network)

    @functools.cached_property
    def _init(self) -> Callable[..., Any]:
        """The network's initialization: one program, and without the maps."""
        return jax.jit(self.model.init)

    def training_network(
        self,
        params: optax.Params,
        batch_stats: chex.ArrayTree,
        image: jax.Array,
        mask: jax.Array | None = None,
    ) -> tuple[Maps, Any]:
        """The network in training: maps, and the next batch statistics."""
        if self.config.optimizer.backbone_rate == 0:
            # Its gradient, most of a step's work, would be multiplied by zero.
            params = {
                name: lax.stop_gradient(part) if name == "backbone" else part
                for name, part in params.items()  # pyrefly: ignore[missing-attribute]
            }
        variables = {"params": params, "batch_stats": batch_stats}
        maps, updated = sphemb.models.apply_masked(
            self.model, variables, image, mask, train=True, mutable=["batch_stats"]
        )
        return maps, updated.get("batch_stats", {})

    def init_state(self, variables: Any = None) -> TrainState:
        """The state at step 0, with new variables or given ones."""
        if variables is None:
            image = jnp.zeros((1, self.stride, self.stride, 3))
            variables = self._init(self.keys["params"], image)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        apply = self.bound(params, batch_stats)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=self.optimizer.init(params),
            task_state=self.task.init(self.keys["task_state"], apply),
        )

    def start_variables(self) -> dict[str, Any]:
        """The variables that ``config.train`` names: all, the backbone's or none."""
        workdir, weights = self.config.train.init_from, self.config.train.weights
        if workdir:
            return _model_variables(workdir, f"config.train.init_from {workdir}")[1]
        backbone = getattr(self.model, "backbone", None)
        if not weights:
            if backbone is not None and self.config.optimizer.backbone_rate == 0:
                raise InputError(
                    "config.train must have weights or init_from, because "
                    "config.optimizer.backbone_rate 0 leaves the backbone as it "
                    "starts, got neither"
                )
            return {}
        where = f"config.train.weights {weights}"
        if backbone is None:
            raise InputError(
                f"{where} are those of a backbone, but config.model.name "
                f"{self.config.model.name} has none"
            )
        if pathlib.Path(weights, "config.json").is_file():
            network, found = _model_variables(weights, where)
            if any("backbone" not in part for part in found.values()):
                raise InputError(
                    f"{where} must be a run whose network has a backbone, got one of "
                    f"{network}"
                )
            loaded = {name: part["backbone"] for name, part in found.items()}
        else:
            loaded = sphemb.models.load_weights(weights, backbone=backbone)
        return {name: {"backbone": part} for name, part in loaded.items()}

    def start_state(self) -> TrainState:
        """The state that training starts from, see ``config.train``."""
        given = self.start_variables()  # missing weights are found before a compilation
        workdir, weights = self.config.train.init_from, self.config.train.weights
        if workdir:
            return self._state_with(given, f"config.train.init_from {workdir}")
        state = self.init_state()
        if not given:
            return state
        own = _variables(state).items()
        variables = {name: {**part, **given[name]} for name, part in own}
        return self._state_with(variables, f"config.train.weights {weights}")

    def _state_with(self, variables: Any, where: str) -> TrainState:
        found, wanted = map(_shapes, (variables, _variables(self.abstract_state)))
        if different := sorted(found ^ wanted):
            name, shape = different[0]
            raise InputError(
                f"{where} must hold this network's parameters, but {len(different)} "
                f"differ, such as {name} {shape}: is config.model the same?"
            )
        return self.init_state(variables)

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """The state's shapes and dtypes."""
        return jax.eval_shape(self.init_state)


def _variables(state: TrainState) -> dict[str, Any]:
    """The variables of a state as Flax names them."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def _shapes(tree: Any) -> set[tuple[str, tuple[int, ...]]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {(jax.tree_util.keystr(path), leaf.shape) for path, leaf in leaves}


def _model_variables(model: str, where: str) -> tuple[str, dict[str, Any]]:
    """The name of a trained network, and its variables; errors begin with ``where``."""
    try:
        trained = load_model(model)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    variables = {"params": trained.params, "batch_stats": trained.batch_stats}
    return trained.experiment.config.model.name, variables


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, ready to predict: the parts of `TrainState` that it needs.

    See `load_model`. ``class_names`` are those of the learned classes, from 0 on, if
    they have names.
    """

    experiment: Experiment
    params: optax.Params
    task_state: TaskState
    step: int
    batch_stats: chex.ArrayTree = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, experiment: Experiment, state: TrainState, class_names: tuple[str, ...]
    ) -> Trained:
        """The network of a state."""
        step, batch_stats = int(state.step), state.batch_stats
        return cls(
            experiment, state.params, state.task_state, step, batch_stats, class_names
        )

    @property
    def apply(self) -> Apply:
        """The network with its parameters bound."""
        return self.experiment.bound(self.params, self.batch_stats)


def load_model(model: str | pathlib.Path) -> Trained:
    """A trained network.

    Args:
        model: one of `model_names`; the folder of a run, of which the newest checkpoint
            is read; or a file of `save_model`.
    """
    path = model_path(model)
    return load_run(path) if path.is_dir() else _load_file(path)


def load_run(workdir: str | pathlib.Path) -> Trained:
    """The newest checkpoint of a run; `InputError` if its folder has none to read."""
    workdir = pathlib.Path(workdir)
    # The run of another person may name folders that it must not write to.
    experiment = Experiment(load_config(workdir), prepares=False)
    state = newest_state(workdir, experiment.abstract_state)
    return Trained.of(experiment, state, load_class_names(workdir))


def _load_file(path: pathlib.Path) -> Trained:
    content = read_model_file(path)
    try:
        config = ml_collections.ConfigDict(content.config)
        experiment = Experiment(config, prepares=False)
        like, names = _stored(experiment.abstract_state), set[str]()
    except InputError as error:
        raise InputError(f"model {path}: {error}") from error

    def array(place: Any, leaf: Any) -> np.ndarray:
        name = _place_name(place)
        names.add(name)
        found = content.arrays.get(name)
        if found is None or found.shape != leaf.shape:
            got = "nothing" if found is None else f"shape {found.shape}"
            raise InputError(f"model {path} must have {name} {leaf.shape}, got {got}")
        return found.astype(leaf.dtype)

    stored = jax.tree_util.tree_map_with_path(array, like)
    if unknown := sorted(content.arrays.keys() - names):
        raise InputError(f"model {path} has {unknown[0]}, which its network lacks")
    return Trained(
        experiment, **stored, step=content.step, class_names=tuple(content.class_names)
    )


def save_model(
    trained: Trained,
    path: str | pathlib.Path,
    *,
    card: ModelCard | None = None,
    dtype: str = "float32",
) -> None:
    """Writes a trained network as one file, without the places of its data.

    Args:
        trained: the network.
        path: the file, which is replaced.
        card: what is known of the network.
        dtype: of the parameters; ``"float16"`` takes half the space.
    """
    check_choice("dtype", dtype, ("float32", "float16"))
    config = plain(trained.experiment.config)
    kept = ("name", "page", "intensity")
    config["data"] = {k: v for k, v in config["data"].items() if k in kept}
    config["train"] |= {"init_from": None, "weights": None}
    arrays = {}
    for place, leaf in jax.tree_util.tree_leaves_with_path(_stored(trained)):
        name, array = _place_name(place), np.asarray(leaf)
        if np.issubdtype(array.dtype, np.floating):
            with np.errstate(over="ignore"):
                array = array.astype(dtype)
            if not np.isfinite(array).all():
                raise InputError(f"{name} must be finite as {dtype}, to be saved")
        arrays[name] = array
    names, step = list(trained.class_names), trained.step
    content = ModelFile(config, names, step, card or ModelCard(), arrays)
    write_model_file(pathlib.Path(path), content)


def _stored(state: Any) -> dict[str, Any]:
    """What a file has of a state, or of a trained network."""
    names = ("params", "batch_stats", "task_state")
    return {name: getattr(state, name) for name in names}


def _place_name(place: Any) -> str:
    return jax.tree_util.keystr(place, simple=True, separator="/")
