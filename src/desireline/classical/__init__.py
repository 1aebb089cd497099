"""Recommenders that need no network: the baselines of every table, and parts of the product."""

from desireline.classical.content import Content
from desireline.classical.ease import Ease, RecentEase
from desireline.classical.interface import Recommender
from desireline.classical.neighbours import ItemKNN, Markov
from desireline.classical.own import OwnFrequency, RepeatLast
from desireline.classical.popularity import Popularity, RecentPopularity
from desireline.classical.users import SessionKNN, TifuKNN

RECOMMENDERS: dict[str, type[Recommender]] = {
    "popularity": Popularity,
    "recent-popularity": RecentPopularity,
    "repeat-last": RepeatLast,
    "own-frequency": OwnFrequency,
    "tifu-knn": TifuKNN,
    "markov": Markov,
    "item-knn": ItemKNN,
    "session-knn": SessionKNN,
    "ease": Ease,
    "recent-ease": RecentEase,
    "content": Content,
}

__all__ = ["RECOMMENDERS", "Recommender"]
