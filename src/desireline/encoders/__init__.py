"""Hidden states from event vectors: one interface, a dict of encoders."""

from desireline.encoders.gru import GRU
from desireline.encoders.interface import Encoder, State, state_bytes
from desireline.encoders.transformer import Transformer

ENCODERS: dict[str, type[GRU] | type[Transformer]] = {"gru": GRU, "transformer": Transformer}

__all__ = ["ENCODERS", "GRU", "Encoder", "State", "Transformer", "state_bytes"]
