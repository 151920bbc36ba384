"""Several processes make the losses and the model of one, each with a copy or with a share of the weights."""

import json
import os
import socket
import time

import pytest
import torch

from ssdfast import models
from ssdfast.config import TrainExecution
from ssdfast.training import runner, trainer

from .test_train import config_of, losses


def _rank(rank, port, directory, settings, shard, dies_at):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(port)
    torch.set_num_threads(1)
    training_step = trainer.SsdTrainer.training_step

    def watched(self, model, *given):
        if self.state.global_step == dies_at:
            os._exit(0)
        kind = type(model).__name__
        assert kind.startswith("FSDP") if shard else kind == "DistributedDataParallel"
        return training_step(self, model, *given)

    trainer.SsdTrainer.training_step = watched
    runner.fit(
        config_of(directory, num_train_epochs=1, **settings), directory / "two" / "train", TrainExecution(fsdp=shard)
    )


def two(directory, settings, shard, dies_at=None):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = torch.multiprocessing.spawn(_rank, args=(port, directory, settings, shard, dies_at), nprocs=2, join=False)
    patience = time.monotonic() + 300
    while not run.join(timeout=5):
        if time.monotonic() > patience:
            for process in run.processes:
                process.kill()
            pytest.fail("the two processes wait for one another")


@pytest.mark.parametrize(
    ("settings", "shard"),
    [
        ({"lora_rank": 2, "micro_batch_tokens": 40}, False),
        ({"micro_batch_tokens": 40, "activation_checkpointing": "full_offload", "sequence_tile_size": 8}, True),
    ],
)
def test_two_processes_make_the_losses_and_the_model_of_one(inputs, settings, shard):
    trained = runner.train(config_of(inputs, num_train_epochs=1, **settings), inputs / "one")
    two(inputs, settings, shard)
    one, other = (
        [json.loads(line) for line in (inputs / name / "train" / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert len(one) == len(other) == 6
    # Which traces meet in a pass differs, and nothing else does.
    for name in ("loss", "grad_norm", "tokens"):
        assert [line[name] for line in other] == pytest.approx([line[name] for line in one], rel=1e-4)
    assert ("grad_noise_var" in other[-1]) == (not shard)
    pair = [models.load(str(path), "float32").model for path in (trained, inputs / "two" / "train" / "model")]
    for (name, a), b in zip(pair[0].named_parameters(), pair[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


def test_a_sharded_run_that_died_makes_the_same_losses(inputs):
    runner.train(config_of(inputs, num_train_epochs=1), inputs / "one")
    two(inputs, {}, shard=True, dies_at=3)
    assert len(losses(inputs / "two")) == 3
    two(inputs, {}, shard=True)
    assert losses(inputs / "two") == pytest.approx(losses(inputs / "one"), rel=1e-5)
