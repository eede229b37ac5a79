"""The other side of benchmarks/theory.py: runs in an environment with neural-tangents, answers one task a line."""

from __future__ import annotations

import json
import sys
import time

import jax
import neural_tangents
import numpy as np
from jax._src import source_info_util
from jax.interpreters import ad
from neural_tangents import stax

jax.config.update("jax_enable_x64", True)
# neural-tangents 0.6.5 looks for both here, where jax no longer has them; without, its fastest way fails
ad.source_info_util = source_info_util
ad.config = jax.config


def main() -> None:
    points, dimension, depth, width = (int(word) for word in sys.argv[1:5])
    given = np.random.default_rng(0).standard_normal((points, dimension))
    hidden = [stax.Dense(width, W_std=2**0.5, b_std=None), stax.Relu()] * depth
    initialize, apply, closed_form = stax.serial(*hidden, stax.Dense(1, W_std=2**0.5, b_std=None))
    single = given.astype(np.float32)
    _, weights = initialize(jax.random.PRNGKey(0), single.shape)
    weights = jax.tree_util.tree_map(lambda weight: weight.astype(np.float32), weights)
    structured = neural_tangents.NtkImplementation.STRUCTURED_DERIVATIVES
    empirical = neural_tangents.empirical_ntk_fn(apply, vmap_axes=0)
    fastest = neural_tangents.empirical_ntk_fn(apply, vmap_axes=0, implementation=structured)
    # what is computed from is an argument: a constant would be folded in when the function is compiled
    kernel = jax.jit(lambda at: closed_form(at, None, ("nngp", "ntk")))
    default = jax.jit(lambda at, theta: empirical(at, None, theta))
    structured_ntk = jax.jit(lambda at, theta: fastest(at, None, theta))
    tasks = {
        "closed form": lambda: kernel(given),
        "empirical": lambda: default(single, weights),
        "empirical, structured derivatives": lambda: structured_ntk(single, weights),
    }
    for task in tasks.values():
        jax.block_until_ready(task())
    for line in sys.stdin:
        if line.strip() == "values":
            print(json.dumps({"ntk": np.asarray(kernel(given).ntk)[:5, :5].tolist()}), flush=True)
            continue
        start = time.perf_counter()
        jax.block_until_ready(tasks[line.strip()]())
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
