"""Checks, tunes and times mean shift and a network on one accelerator.

    python -m benchmarks.accelerator --out results/accelerator    # under 8 minutes
    python -m benchmarks.accelerator --dry --out dry                # tiny, on a CPU

Every result is a line of OUT/results.jsonl at once, so that a time limit loses nothing.
A section starts only if its seconds are left. What the numbers decide: docs/speed.md.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import throughput
from benchmarks._machine import describe
from sphemb import _tiles
from sphemb.grouping import _fused, _step
from sphemb.grouping._fused import Plan
from sphemb.models import DenseEmbedding

HIGHEST = jax.lax.Precision.HIGHEST
Preset = jax.lax.DotAlgorithmPreset
TILES = ((4096, 256), (8192, 1024), (16384, 2048))
FORWARD = ((64, 64, 4), (128, 64, 8), (128, 128, 8), (64, 128, 4), (128, 32, 8))
BACKWARD = ((64, 32, 4), (128, 32, 8), (64, 64, 4), (128, 64, 8))


class Run:
    """The time left, and the file of results."""

    def __init__(self, out: pathlib.Path, limit: float, dry: bool):
        self.end, self.dry = time.monotonic() + limit, dry
        out.mkdir(parents=True, exist_ok=True)
        self.file = (out / "results.jsonl").open("w")
        self.plans: dict[tuple[int, int], Plan] = {}  # the fastest, by (D, pass)
        gpu = jax.default_backend() == "gpu"
        self.presets: dict[str, Any] = {"highest": HIGHEST}
        if gpu:
            self.presets["tf32x3"] = Preset.TF32_TF32_F32_X3
            self.presets["bf16x6"] = Preset.BF16_BF16_F32_X6

    def left(self) -> float:
        """Seconds of the limit that are left."""
        return self.end - time.monotonic()

    def write(self, section: str, **values: Any) -> None:
        """Writes a line of results, also to the terminal."""
        rounded = {
            name: float(f"{v:.4g}") if isinstance(v, float) else v
            for name, v in values.items()
        }
        line = json.dumps({"section": section, **rounded})
        print(line, file=self.file, flush=True)
        print(line, flush=True)

    def seconds(self, call: Callable, *args: Any) -> float:
        """The median of five times of a call, after one that compiles."""
        jax.block_until_ready(call(*args))
        taken: list[float] = []
        while len(taken) < (1 if self.dry else 5):
            start = time.perf_counter()
            jax.block_until_ready(call(*args))
            one = time.perf_counter() - start
            count = 1 if self.dry else min(200, int(0.05 / max(one, 1e-6)) + 1)
            start = time.perf_counter()
            jax.block_until_ready([call(*args) for _ in range(count)][-1])
            taken.append((time.perf_counter() - start) / count)
            if one > 1:
                break
        return float(np.median(taken))

    def chosen(self, num_points: int, dim: int) -> tuple[Plan, Plan]:
        """The plans of both passes: the tuned, or the library's."""
        if self.dry:
            return (Plan("cuda", 32, 32, interpret=True),) * 2
        platform = "tpu" if jax.default_backend() == "tpu" else "cuda"
        both = _fused.choose_plans(platform, num_points, dim)
        found = [self.plans.get((dim, i), plan) for i, plan in enumerate(both)]
        if platform == "cuda":
            found = [_fused.fill_gpu(plan, num_points) for plan in found]
        return found[0], found[1]

    def steps(self, num_points: int, dim: int) -> dict[str, Callable]:
        """One step by every path."""
        tiling = functools.partial(_tiles.choose_tiling, num_points, num_points)
        paths: dict[str, Callable] = {
            f"xla {name}": functools.partial(_step.step, tiling(precision=precision))
            for name, precision in self.presets.items()
        }
        plans = self.chosen(num_points, dim)
        return paths | {"fused": functools.partial(_fused.step, plans)}


def points(num_points: int, dim: int) -> np.ndarray:
    """Ten groups, and a tenth of the points between two of them."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(10, dim))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    x = centers[rng.integers(0, 10, num_points)]
    x += 0.45 * rng.normal(size=x.shape) / np.sqrt(dim)
    few = num_points // 10
    share = rng.uniform(size=(few, 1))
    x[:few] = share * x[:few] + (1 - share) * centers[rng.integers(0, 10, few)]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def dense(x, weights, kappa, eta):
    """One step by its definition."""
    product = functools.partial(jnp.matmul, precision=HIGHEST)
    kernel = jnp.exp(kappa * (product(x, x.T) - 1.0)) * weights
    mean = product(kernel, x) / kernel.sum(axis=1, keepdims=True)
    y = (1.0 - eta) * x + eta * mean
    moved = y / jnp.linalg.norm(y, axis=1, keepdims=True)
    return jnp.where(weights[:, None] > 0, moved, x)


def shift(step: Callable, num_steps: int) -> Callable:
    def run(x, *args):
        body = lambda x, _: (step(x, *args), None)  # noqa: E731
        return jax.lax.scan(body, x, None, length=num_steps)[0]

    return run


def slopes(step: Callable, num_steps: int) -> Callable:
    """Value and gradients in x, weights, kappa and eta, compiled on the first call."""

    def run(targets, *args):
        value, pull = jax.vjp(shift(step, num_steps), *args)
        return value, *pull(targets)

    return jax.jit(run)


def problem(num_points: int, dim: int, kappa: float) -> tuple[Any, ...]:
    rng = np.random.default_rng(1)
    targets = rng.normal(size=(num_points, dim)).astype(np.float32)
    weights = (rng.integers(0, 4, num_points) > 0).astype(np.float32)
    numbers = np.float32(kappa), np.float32(0.9)
    return targets, points(num_points, dim), weights, *numbers


def ceilings(run: Run) -> None:
    n = 128 if run.dry else 8192
    x = jax.random.normal(jax.random.key(0), (n, n))
    cases = {"float16": (jnp.float16, None), "bfloat16": (jnp.bfloat16, None)}
    cases |= {name: (jnp.float32, p) for name, p in run.presets.items()}
    for name, (dtype, precision) in cases.items():
        wide = {"precision": precision, "preferred_element_type": jnp.float32}
        product = jax.jit(functools.partial(jnp.matmul, **wide))
        seconds = run.seconds(product, x.astype(dtype), x.astype(dtype))
        run.write("ceilings", product=name, teraflops=2e-12 * n**3 / seconds)
    big = jnp.ones(2**12 if run.dry else 2**28)
    seconds = run.seconds(jax.jit(lambda a: a + 1.0), big)
    run.write("ceilings", copied_terabytes=8e-12 * big.size / seconds)
    seconds = run.seconds(jax.jit(lambda a: jnp.exp2(-a)), big)
    run.write("ceilings", exponentials=big.size / seconds)


def numerics(run: Run) -> None:
    n, num_steps = (48, 2) if run.dry else (1500, 10)
    for dim in (16,) if run.dry else (64, 16, 3, 128):
        paths = {"dense": dense, **run.steps(n, dim)}
        calls = {name: slopes(step, num_steps) for name, step in paths.items()}
        exact = slopes(dense, num_steps)
        for kappa in (36.0,) if run.dry else (25.0, 36.0, 100.0):
            if run.left() < 60 and not run.dry:
                return
            args = problem(n, dim, kappa)
            with jax.enable_x64(True):
                true = jax.device_get(exact(*(np.float64(a) for a in args)))
            for name, call in calls.items():
                errors = [
                    float(np.linalg.norm(a - b) / np.linalg.norm(b))
                    for a, b in zip(jax.device_get(call(*args)), true, strict=True)
                ]
                names = ("z", "x", "weights", "kappa", "eta")
                found = dict(zip(names, errors, strict=True))
                run.write("numerics", path=name, dim=dim, concentration=kappa, **found)


def long_sums(run: Run) -> None:
    """Tensor cores cut bits off: does a long sum lean to one side?"""
    for n in (256,) if run.dry else (65536, 262144):
        x, dim = points(n, 64), 64
        few = np.random.default_rng(2).choice(n, 64, replace=False)
        kernel = np.exp(36.0 * (x[few].astype(float) @ x.T.astype(float) - 1.0))
        degree = kernel.sum(axis=1)
        plan = run.chosen(n, dim)[0]
        sums = jax.jit(functools.partial(_fused._near_sums, plan))
        found = np.asarray(sums(x, np.ones(n, np.float32), np.float32(36.0)))
        off = found[few, -1] / degree - 1.0
        run.write("long_sums", n=n, error=float(np.abs(off).max()), bias=off.mean())


def determinism(run: Run) -> None:
    n, dim = (48, 16) if run.dry else (20000, 64)
    args = problem(n, dim, 36.0)
    for name, step in run.steps(n, dim).items():
        call = slopes(step, 2)
        turns = [jax.device_get(call(*args)) for _ in range(3)]
        same = all(
            np.array_equal(a, b)
            for turn in turns[1:]
            for a, b in zip(turn, turns[0], strict=True)
        )
        run.write("determinism", path=name, same_bits=same)


def tune(run: Run) -> None:
    """The fastest tile of each pass; programs are compiled side by side."""
    if jax.default_backend() == "tpu":
        return
    n = 64 if run.dry else 32768
    for dim in (16,) if run.dry else (64, 16, 32, 128):
        targets, x, weights, kappa, _ = problem(n, dim, 36.0)
        mass = np.where(weights > 0, np.float32(n / 10), np.inf)
        passes = (
            (_fused._near_sums, FORWARD, (x, weights, kappa)),
            (_fused._pull_sums, BACKWARD, (x, weights, x, mass, targets, kappa)),
        )
        for index, (sums, shapes, args) in enumerate(passes):
            if run.left() < 150 and not run.dry:
                return
            plans = [Plan("cuda", r, c, num_warps=w) for r, c, w in shapes]
            if run.dry:
                plans = [Plan("cuda", 32, 32, interpret=True)]

            def build(plan, sums=sums, args=args):
                try:
                    call = jax.jit(functools.partial(sums, plan))
                    return call.lower(*args).compile()
                except Exception as error:  # too large a tile, for one
                    return repr(error)[:200]

            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                programs = list(pool.map(build, plans))
            best = None
            for plan, program in zip(plans, programs, strict=True):
                case = {"dim": dim, "backward": bool(index), "plan": list(plan[1:5])}
                if isinstance(program, str):
                    run.write("tune", error=program, **case)
                    continue
                seconds = run.seconds(program, *map(jnp.asarray, args))
                run.write("tune", milliseconds=1e3 * seconds, **case)
                best = min(best or (seconds, plan), (seconds, plan))
            if best:
                run.plans[dim, index] = best[1]


def _timed(run: Run, section: str, step: Callable, n, dim, num_steps, **case) -> None:
    targets, *args = map(jnp.asarray, problem(n, dim, 36.0))
    value = run.seconds(jax.jit(shift(step, num_steps)), *args)
    slope = run.seconds(slopes(step, num_steps), targets, *args)
    case |= {"n": n, "dim": dim, "steps": num_steps}
    run.write(section, value_ms=1e3 * value, gradient_ms=1e3 * slope, **case)


def times(run: Run) -> None:
    sizes = ((48, 2),) if run.dry else ((4096, 10), (16384, 10), (65536, 1))
    for dim in (16,) if run.dry else (64, 16):
        for n, num_steps in sizes if run.dry else (*sizes, (262144, 1)):
            if run.left() < 110 and not run.dry:
                return
            step = run.steps(n, dim)["fused"]
            _timed(run, "times", step, n, dim, num_steps, path="fused")


def xla(run: Run) -> None:
    for n, num_steps in ((48, 2),) if run.dry else ((4096, 10), (65536, 1)):
        for rows, columns in ((32, 32),) if run.dry else TILES:
            for name, precision in run.presets.items():
                if (run.left() < 100 or rows > 2 * n) and not run.dry:
                    continue
                tiling = _tiles.Tiling(min(rows, n), min(columns, n), precision)
                step = functools.partial(_step.step, tiling)
                case = {"path": f"xla {name}", "tile": [rows, columns]}
                _timed(run, "xla", step, n, 64, num_steps, **case)


def network(run: Run) -> None:
    batch, side = (1, 64) if run.dry else (16, 512)
    backbone = "resnet18" if run.dry else "resnet50"
    host = np.random.default_rng(0).random((batch, side, side, 3), np.float32)
    for dtype in ("bfloat16",) if run.dry else ("bfloat16", "float32"):
        if run.left() < 60 and not run.dry:
            return
        model = DenseEmbedding(backbone=backbone, axis_name=None, dtype=dtype)
        variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
        optimizer = optax.sgd(1e-6, momentum=0.9)
        params = variables["params"]

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, state, image, model=model, rest=variables, opt=optimizer):
            def loss(params):
                maps: Any = model.apply({**rest, "params": params}, image)
                return jnp.mean(jnp.square(maps["embedding"]))

            changes, state = opt.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, changes), state

        state = (jax.tree.map(jnp.copy, params), optimizer.init(params))
        image = jax.device_put(host)
        start = time.perf_counter()
        state = jax.block_until_ready(step(*state, image))
        compiling = time.perf_counter() - start
        count = 1 if run.dry else 20
        start = time.perf_counter()
        for _ in range(count):
            state = step(*state, image)
        jax.block_until_ready(state)
        taken = (time.perf_counter() - start) / count
        case = {"dtype": dtype, "compile_s": compiling, "copy_s": copy_seconds(host)}
        run.write("network", images_per_s=batch / taken, **case)


def copy_seconds(host: np.ndarray) -> float:
    start = time.perf_counter()
    jax.block_until_ready(jax.device_put(host))
    return time.perf_counter() - start


def pipeline(run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "photographs"
        throughput.write_photographs(root)
        for threads in (2,) if run.dry else (2, 8, 16):
            size = 64 if run.dry else 512
            experiment = throughput.make_experiment(root, "resnet18", size, threads)
            count = 10 if run.dry else 300
            seconds = throughput.pipeline_seconds(experiment, count=count)
            run.write("pipeline", threads=threads, images_per_s=1 / seconds)


# With the seconds that must be left.
SECTIONS = (
    (ceilings, 30),
    (numerics, 90),
    (long_sums, 30),
    (determinism, 20),
    (tune, 160),
    (times, 70),
    (xla, 110),
    (network, 60),
    (pipeline, 20),
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--limit", type=float, default=460.0, help="seconds in all")
    parser.add_argument("--only", nargs="+", choices=[s.__name__ for s, _ in SECTIONS])
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on a CPU")
    flags = parser.parse_args(arguments)
    if flags.dry:
        jax.config.update("jax_platforms", "cpu")
    run, failed = Run(flags.out, flags.limit, flags.dry), 0
    run.write("machine", **describe(os.cpu_count() or 1))
    for section, needed in SECTIONS:
        name = section.__name__
        if flags.only and name not in flags.only:
            continue
        if run.left() < needed:
            run.write(name, skipped=f"{run.left():.0f} s were left")
            continue
        start = time.monotonic()
        try:
            section(run)
        except Exception as error:  # the other sections are worth having
            run.write(name, error=repr(error)[:500])
            failed += 1
        run.write("seconds", of=name, taken=time.monotonic() - start)
    return failed


if __name__ == "__main__":
    sys.exit(main())
