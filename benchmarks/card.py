"""Training on a CUDA card beside RecTools on the same card: `python -m benchmarks.card [--epochs N] [--json]`.

The logs, networks, drivers and equal terms of benchmarks.training, on the card that PyTorch finds: it is for a peer to
take it too, and RecTools does. Beside the rate stands the model FLOP utilisation: the floating-point operations that
the transformer's formulas ask for each real target, forward and back, by those that a large bfloat16 product reached on
the card in the same run. Writes benchmarks/results/card.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import polars as pl
import torch

from benchmarks.ingest import show
from benchmarks.peers.own_transformer import LAYERS, WIDTH
from benchmarks.peers.pace import WARM
from benchmarks.record import machine, record
from benchmarks.training import BATCH_USERS, BENCH, LOGS, TUNED_SUFFIX, run

SIDE, TIMES = 8_192, 20  # of the product that says what the card can
WHOLE = {"ML-1M's shape": None, "Amazon Beauty": 22_363}  # users
SHOWN = (
    *("log", "users a step", "loss", "model", "targets/s", "whole fit", "× stock", "utilisation"),
    *("NDCG@10", "± SE", "users ranked/s", "users", "epochs"),
)


def product_flops() -> float:
    """Floating-point operations a second of a bfloat16 product of two square matrices of SIDE on random data."""
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(TIMES):
        a @ b
    torch.cuda.synchronize()
    return 2 * SIDE**3 * TIMES / (time.perf_counter() - begun)


def flops_a_target(name: str, negatives: int) -> float:
    """Of one real target, forward and twice that back: projections and feed-forward (12·d² a layer), attention over
    what a target sees on average, and the scores of the candidates."""
    log = LOGS[name]
    table = pl.read_parquet(BENCH / "training" / f"{name.split()[-1].lower()}.parquet")
    counts = table.group_by("user").len()["len"].clip(upper_bound=log.length).to_numpy()
    seen = float((counts * (counts + 1) / 2).sum() / counts.sum())
    candidates = negatives or table["item"].n_unique()
    return 3 * 2 * (LAYERS * (12 * WIDTH**2 + 2 * seen * WIDTH) + candidates * WIDTH)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=4, help="of the processor that feeds the card")
    parser.add_argument("--full", action="store_true", help="the full softmax alone, no sampled negatives")
    parser.add_argument("--quick", action="store_true", help="300 users, one epoch; not recorded")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA card here; `python -m benchmarks.training` measures on the processor.")
    begun, peak, rows = machine(), product_flops(), []
    for name, users in WHOLE.items():
        for negatives in [0] if options.full else LOGS[name].negatives:
            epochs, some = (1, 300) if options.quick else (options.epochs, users)
            found: list[dict[str, Any]] = run(
                name, options.threads, epochs, some, BATCH_USERS, negatives, lambda model: model.endswith(TUNED_SUFFIX)
            )
            needed = flops_a_target(name, negatives)
            rows += [row | {"utilisation": f"{row['targets/s'] * needed / peak:.2%}"} for row in found]
    if not options.quick:
        notes = [
            f"On one {torch.cuda.get_device_name()}, fed by {options.threads} threads of the processor; its bfloat16 "
            f"product of {SIDE} × {SIDE} reached {peak / 1e12:,.0f} TFLOP/s in the same run.",
            f"Real targets a second from step {WARM + 1} on; `whole fit` counts all. Equal data, epochs, steps, "
            "learning rate; `own settings`: our defaults, steps of 512 targets.",
            "`utilisation`: operations that the formulas ask for, by those of that product. Networks this narrow leave "
            "a card idle: what counts is how many kernels are launched, not their size.",
        ]
        command = " ".join(["python -m benchmarks.card", *sys.argv[1:]])
        shown = [{column: row[column] for column in SHOWN} for row in rows]
        told = {"title": "Training on a card", "command": command, "rows": shown, "details": rows}
        record("card", {"machine": begun, **told, "notes": notes})
    show(rows if options.json else [{c: row[c] for c in SHOWN} for row in rows], options.json)


if __name__ == "__main__":
    main()
