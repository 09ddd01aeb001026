"""Trains SavedModels in two replicas: distributed_training.py mirrored|workers DATA.npz (SAVED_MODEL RESULT.npz)...

Of several workers, each is a process of its own with its place in TF_CONFIG.
"""

from __future__ import annotations

import sys

import keras
import numpy as np
import tensorflow as tf

BATCH = 8
EPOCHS = 2


def make_strategy(kind: str) -> tf.distribute.Strategy:
    """Two replicas: two devices of this process, or this process and another one."""
    if kind == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    (device,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def main(kind: str, data: str, *paths: str) -> None:
    """Train one model after the other."""
    strategy = make_strategy(kind)
    assert strategy.num_replicas_in_sync == 2
    for saved_model, result in zip(paths[::2], paths[1::2], strict=True):
        train(strategy, saved_model, dict(np.load(data)), result)


def train(strategy: tf.distribute.Strategy, saved_model: str, batch: dict[str, np.ndarray], result: str) -> None:
    """Train, and write what each replica here holds, and what the model then computes."""
    with strategy.scope():
        model = tf.saved_model.load(saved_model)
        variables = model.trainable_variables
        optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
        optimizer.build(variables)

    @tf.function
    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        def replica(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model.serve(x))
                loss = tf.reduce_sum(losses) / BATCH
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return loss

        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(replica, (x, y)), axis=None)

    examples = tf.data.Dataset.from_tensor_slices((batch["x"], batch["y"])).batch(BATCH)
    options = tf.data.Options()
    # Each worker takes its share of every batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    distributed = strategy.experimental_distribute_dataset(examples.with_options(options))
    losses = [step(x, y).numpy() for _ in range(EPOCHS) for x, y in distributed]
    held = {
        f"replica{number}/variables/{i}": copy.numpy()
        for i, variable in enumerate(model.variables)
        for number, copy in enumerate(strategy.experimental_local_results(variable))
    }
    np.savez(result, losses=losses, outputs=model.serve(batch["x"]).numpy(), **held)


if __name__ == "__main__":
    main(*sys.argv[1:])
