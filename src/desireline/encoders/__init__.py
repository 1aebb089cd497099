"""Hidden states from events: one interface, a dict of encoders."""

from desireline.encoders.gnn import GNN
from desireline.encoders.hstu import HSTU
from desireline.encoders.interface import Encoder, Events, State, state_bytes
from desireline.encoders.recurrent import GRU, LSTM, RNN
from desireline.encoders.seqcnn import SeqCNN
from desireline.encoders.transformer import Transformer

Kind = type[RNN] | type[LSTM] | type[GRU] | type[SeqCNN] | type[GNN] | type[Transformer] | type[HSTU]

ENCODERS: dict[str, Kind] = {
    "rnn": RNN,
    "lstm": LSTM,
    "gru": GRU,
    "seqcnn": SeqCNN,
    "gnn": GNN,
    "transformer": Transformer,
    "hstu": HSTU,
}

__all__ = ["ENCODERS", "Encoder", "Events", "State", "state_bytes"]
