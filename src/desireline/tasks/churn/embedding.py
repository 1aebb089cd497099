"""What has happened to a user, as the state of a network that is not asked about leaving: numbers without names.

The state is as of a row's moment: the network reads the user's occasions strictly before it and nothing else. How long
the user has been silent since is no part of the state; the snapshot's `days_since_last` tells that.

Cost: every history is read once a moment, by whatever number of rows on the same states.
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
    """Reads sequences by a network whose weights stay as they are.

    remembers : what was read stays at hand as long as the object does, for others who ask for the same rows
    """

    def __init__(self, network: Network, of: Definition, remembers: bool = False) -> None:
        self.network, self.of, self.remembers = network.eval(), of, remembers
        self._read: list[tuple[Sequences, NDArray[np.int64], int, NDArray[np.float32]]] = []

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
        for known, users, moment, states in self._read:
            if known is events and moment == as_of_us and np.array_equal(users, user):
                return states
        now, place = asked_now(events, as_of_us), np.full(len(events), -1)
        place[now.user] = now.place
        read, newest = occasions_upto(events, user, place[user], self.of)
        states = np.asarray(fetched(self.network.encode(read, newest)), np.float32)
        if self.remembers:
            self._read.append((events, user, as_of_us, states))
        return states
