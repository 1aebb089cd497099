"""RePlay's SasRec (replay.nn, Lightning) on a table of interactions; run by the peer's own interpreter.

python replay_sasrec.py TRAIN.parquet LISTS.parquet EPOCHS LENGTH BATCH_USERS [NEGATIVES [login]]

NEGATIVES 0: its `CE`, cross-entropy over the whole catalogue; else its `CESampled` with so many uniform negatives that
a whole batch shares (`UniformNegativeSamplingTransform`: no item twice, one that is the target left out, no logQ).
login: its `LogInCE` instead of `CE`, the same loss but at real places only, faster where windows are far from full.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import polars as pl
import pyarrow as pa
import torch
from pace import Pace
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import TorchTopItemsCallback
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.lightning.postprocessor import SeenItemsFilter
from replay.nn.loss import CESampled, LogInCE
from replay.nn.sequential import SasRec
from replay.nn.transform import AdaptiveTrimTransform, EqualityMaskTransform, UniformNegativeSamplingTransform
from replay.nn.transform.template import make_default_sasrec_transforms

WIDTH, LAYERS, HEADS, DROPOUT = 64, 2, 2, 0.2
SEED = 0
TOP = 10
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
}


class Steps(lightning.Callback):
    """Tells a pace of each step."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace

    def on_train_batch_start(self, _trainer: Any, _module: Any, batch: dict[str, Any], _index: int) -> None:
        """A step begins."""
        self.pace.step(int(batch["target_padding_mask"].sum()))


def schema_of(items: int) -> TensorSchema:
    """A sequence of item ids from 0; the id after the last one pads, as RePlay wants it."""
    feature = TensorFeatureInfo(
        "item_id",
        is_seq=True,
        feature_type=FeatureType.CATEGORICAL,
        feature_hint=FeatureHint.ITEM_ID,
        feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
        cardinality=items,
        padding_value=items,
        embedding_dim=WIDTH,
    )
    return TensorSchema([feature])


def network_of(schema: TensorSchema, items: int, length: int, negatives: int, login: bool) -> SasRec:
    """SasRec as its library composes it, with one of the three losses."""
    model = SasRec.from_params(
        schema,
        embedding_dim=WIDTH,
        num_heads=HEADS,
        num_blocks=LAYERS,
        max_sequence_length=length,
        dropout=DROPOUT,
    )
    if negatives:
        return SasRec(model.body, CESampled())
    return SasRec(model.body, LogInCE(items)) if login else model


def main() -> None:
    """Fit, rank the catalogue for everybody, print seconds as JSON."""
    source, out = sys.argv[1:3]
    epochs, length, users, negatives = map(int, [*sys.argv[3:7], 0][:4])
    login = sys.argv[7:] == ["login"]
    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    pa.set_cpu_count(threads)
    lightning.seed_everything(SEED)
    whole = pl.read_parquet(source).sort("user", "position")
    kept = whole.group_by("user", maintain_order=True).tail(length)
    catalogue = kept["item"].unique().sort()
    items = len(catalogue)
    codes = pl.DataFrame({"item": catalogue, "item_id": range(items)})
    whole = whole.join(codes, on="item", how="left", maintain_order="left").with_columns(
        pl.col("item_id").fill_null(-1)
    )
    by_user = whole.group_by("user", maintain_order=True)
    schema = schema_of(items)
    transforms = make_default_sasrec_transforms(schema)
    # its targets begin with the event after the padding, for users shorter than the window: one that has no input
    transforms["train"].insert(2, EqualityMaskTransform("padding_mask", True))
    if negatives:
        transforms["train"].append(UniformNegativeSamplingTransform(items, negatives))
    transforms["predict"].insert(1, AdaptiveTrimTransform("item_id"))
    window = {"shape": length, "padding": items}
    with tempfile.TemporaryDirectory() as folder:
        train, predict = str(Path(folder) / "train.parquet"), str(Path(folder) / "predict.parquet")
        by_user.agg(pl.col("item_id").tail(length)).select("item_id").write_parquet(train)
        wall, processor = time.perf_counter(), time.process_time()
        data = ParquetModule(users, {"train": {"item_id": window}}, transforms, train_path=train)
        model = LightningModule(
            network_of(schema, items, length, negatives, login), OptimizerFactory(learning_rate=0.001)
        )
        pace = Pace()
        lightning.Trainer(max_epochs=epochs, callbacks=[Steps(pace)], **QUIET).fit(model, data)
        fitted = pace.told() | {"fit_s": time.perf_counter() - wall, "fit_cpu_s": time.process_time() - processor}
        wall = time.perf_counter()
        # what a user had is masked, what stands before the window too
        had = by_user.agg(pl.col("item_id").tail(length), pl.col("item_id").alias("seen_ids"))
        had.write_parquet(predict)
        seen = {"shape": had["seen_ids"].list.len().max(), "padding": items}
        fields = {"user": {}, "item_id": window, "seen_ids": seen}
        data = ParquetModule(users, {"predict": fields}, transforms, predict_path=predict)
        top = TorchTopItemsCallback(TOP, "user", [SeenItemsFilter(items)])
        lightning.Trainer(callbacks=[top], **QUIET).predict(model, data, return_predictions=False)
        who, best, _ = top.get_result()
        ranked = time.perf_counter() - wall
    rank = torch.arange(1, TOP + 1).repeat(len(who))
    table = {"user": who.repeat_interleave(TOP).numpy(), "item": catalogue.gather(best.flatten()), "rank": rank.numpy()}
    pl.DataFrame(table).write_parquet(out)
    parameters = sum(p.numel() for p in model.parameters())
    print(json.dumps({**fitted, "rank_s": ranked, "parameters": parameters}))


if __name__ == "__main__":
    main()
