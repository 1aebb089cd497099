"""What has happened to a user, as the state of a network that is not asked about leaving: numbers without names.

The state is as of a row's moment: the network reads the user's occasions strictly before it and nothing else. How long
the user has been silent since is no part of the state; the snapshot's `days_since_last` tells that.

Cost: every history is read once a moment.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.sequences.ragged import Sequences
from desireline.tasks.answers import asked_now
from desireline.tasks.churn.definition import Definition, occasions_upto
from desireline.tasks.churn.models import STATE
from desireline.training.device import fetched
from desireline.training.network import Network


class Embedding:
    """Reads sequences by a network whose weights stay as they are."""

    def __init__(self, network: Network, of: Definition) -> None:
        self.network, self.of = network.eval(), of

    def beside(self, rows: pl.DataFrame, events: Sequences) -> pl.DataFrame:
        """The rows [R] of a snapshot with d further columns, the state of each one's user as of its `as_of`, float32.

        events : cleaned events of at least the rows' users, later ones too
        """
        row_of = pl.DataFrame({"user": events.users, "row": np.arange(len(events))})
        user = rows.select("user").join(row_of, on="user", how="left", maintain_order="left")["row"].to_numpy()
        moments, which = np.unique(rows["as_of"].dt.epoch("us").to_numpy(), return_inverse=True)
        states = np.zeros((rows.height, self.network.encoder.d_model), np.float32)
        for number, moment in enumerate(moments.tolist()):
            here = which == number
            states[here] = self.states(events, user[here], moment)
        return rows.hstack([pl.Series(f"{STATE}{n}", column) for n, column in enumerate(states.T)])

    def states(self, events: Sequences, user: NDArray[np.int64], as_of_us: int) -> NDArray[np.float32]:
        """float32 [Q, d]: hidden states of users [Q], each with an event before a moment, after all such events."""
        now, place = asked_now(events, as_of_us), np.full(len(events), -1)
        place[now.user] = now.place
        read, newest = occasions_upto(events, user, place[user], self.of)
        return np.asarray(fetched(self.network.encode(read, newest)), np.float32)
