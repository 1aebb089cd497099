"""What the next steps will take, from counts alone; the formulas are part of the answer."""

from __future__ import annotations

from dataclasses import dataclass

from desireline.schema.model import Schema

# measured on this project's own steps, one core of an AMD EPYC of 2023, Online Retail II and made-up clickstreams
PREPARE_US = 2.0  # a core, an event: read, clean, sessions, features, codes, write
PREPARE_BYTES = 400  # an event of the part that a worker holds: strings, their codes, running sums
PART_EVENTS = 500_000
SPAWN_S = 1.2  # processes start
PROCESS_MIB = 250  # an interpreter with polars and numpy
TRAIN_MIB = 700  # the same with PyTorch
RATE_FLOPS = 20e9  # a core, float32, all overheads within
FULL_SOFTMAX = 20_000  # a larger catalogue is trained against sampled negatives


@dataclass(frozen=True)
class Estimate:
    """Seconds, MiB and the formula that gave them."""

    seconds: float
    memory_mib: float
    disk_mib: float
    formula: str


def estimate_prepare(events: int, users: int, schema: Schema, cores: int) -> Estimate:
    """Of `desireline prepare` on a log of so many events."""
    workers = max(1, min(schema.prepare.workers or cores, -(-events // PART_EVENTS)))
    part = min(events, PART_EVENTS)
    own = [field for field in schema.fields.values() if field.of == "event"]
    width = 25 + 4 * sum(f.kind == "category" for f in own) + 6 * sum(f.kind in ("number", "duration") for f in own)
    return Estimate(
        SPAWN_S * (workers > 1) + events * PREPARE_US * 1e-6 / workers,
        PROCESS_MIB + workers * (PROCESS_MIB + part * PREPARE_BYTES / 2**20),
        (events * width + users * 600) / 2**20,
        f"{PREPARE_US} us x events / {workers} processes, {SPAWN_S} s to start more than one; "
        f"memory {PROCESS_MIB} MiB + a process ({PROCESS_MIB} MiB + {PREPARE_BYTES} B x {part:,} events); "
        f"disk {width} B an event + 600 B a user",
    )


def estimate_epoch(targets: int, items: int, schema: Schema, cores: int) -> Estimate:
    """Of one pass of training over so many events with one before them, with the schema's encoder and loss."""
    size, train = schema.encoder, schema.train
    full = train.loss == "softmax" or (train.loss == "auto" and items <= FULL_SOFTMAX)
    classes = items if full else min(items, train.negatives)
    flops = 6 * (size.d_model * classes + size.layers * (12 * size.d_model**2 + 2 * size.length * size.d_model))
    parameters = items * size.d_model + size.layers * 12 * size.d_model**2
    batch = train.batch_targets * (4 * 2 * classes + 4 * 40 * size.layers * size.d_model)
    return Estimate(
        targets * flops / (RATE_FLOPS * max(1, train.threads or cores)),
        TRAIN_MIB + (20 * parameters + batch) / 2**20,
        4 * parameters / 2**20,
        f"{flops / 1e6:.2f} MFLOP a target (6 x (d x {classes:,} classes + layers x (12 d^2 + 2 length d))) at "
        f"{RATE_FLOPS / 1e9:.0f} GFLOP/s a core; memory {TRAIN_MIB} MiB + 20 B a weight + a step's logits",
    )
