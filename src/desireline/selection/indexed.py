"""Whether a network's lists come from an index of its items, and that index, kept in the model's folder."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from desireline.core.progress import say
from desireline.sequences.prepared import Prepared
from desireline.sequences.vocabulary import FIRST
from desireline.tasks import nearest
from desireline.tasks.answers import asked_now
from desireline.tasks.nearest import PROMISED, SMALLEST, Floats, Nearest, Vectors
from desireline.tasks.questions import without_known_item
from desireline.training.device import beside, fetched
from desireline.training.network import Network

ASKED = 256  # users whose lists tell how much of the index must be read
FOLDER = "nearest"  # inside the model's


def index_of(network: Network, prepared: Prepared, model: Path) -> Nearest | None:
    """The index of a network's items, made when the model's folder holds none; None: every item is looked at.

    So it is where the catalogue is not above `evaluate.approximate_above`; and, told in a line, where the extra `ann`
    is missing or the index finds too little.
    """
    items, above = network.inputs.items - FIRST, prepared.schema.evaluate.approximate_above
    if above == 0 or items <= max(above, SMALLEST):
        return None
    looked = f"every list is made from all {items:,} items"
    if not nearest.is_installed():
        say(f"The extra `ann` is not installed, so {looked}, which is slow: pip install 'desireline[ann]'.")
        return None
    found = nearest.opened(model / FOLDER, lambda: _made(network, prepared, items))
    if found.recall < PROMISED:
        say(f"An index of the items finds {found.recall:.0%} of the best ten, less than {PROMISED:.0%}: {looked}.")
        return None
    return found


def unit_vectors(network: Network) -> Vectors:
    """Of items int64 [n]: their vectors float32 [n, d] at length 1."""

    @torch.inference_mode()
    def vectors(ids: NDArray[np.int64]) -> Floats:
        table = network.embedding
        return fetched(F.normalize(table.item_vectors(beside(table.items.weight, ids)), dim=-1))

    return vectors


@torch.inference_mode()
def _made(network: Network, prepared: Prepared, items: int) -> Nearest:
    say(f"Making an index of {items:,} items, once for this model.")
    begun = time.perf_counter()
    asked = asked_now(prepared.before, prepared.cut_us)
    known = np.flatnonzero(~without_known_item(asked))
    rows = known[np.linspace(0, len(known) - 1, min(ASKED, len(known))).astype(np.int64)]
    unit = fetched(F.normalize(network.encode(asked.timeline, asked.place[rows]), dim=-1))
    made = nearest.build(unit_vectors(network), network.inputs.items, unit)
    say(f"Made in {time.perf_counter() - begun:.0f} s; of the best ten it finds {made.recall:.1%}.")
    return made
