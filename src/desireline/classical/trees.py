"""Gradient-boosted trees on named numbers: the strongest simple model for a label, with Shapley values for its reasons.

Cross-fitted over folds of users: every row has a score of boosters that never saw its user, which is what calibration
is fitted on, and the mean of all folds' boosters answers for everybody. LightGBM (Ke et al. 2017); reasons by TreeSHAP
(Lundberg et al. 2020, Algorithm 2), which LightGBM brings along.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from desireline.core.errors import SettingError
from desireline.core.progress import progress

FOLDS = 5
ROUNDS = 300
MEAN_ROUNDS = 80
COMMON: dict[str, Any] = {
    "min_data_in_leaf": 40,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}
PARAMETERS = COMMON | {
    "objective": "binary",
    "metric": "binary_logloss",
    "learning_rate": 0.04,
    "num_leaves": 15,
    "feature_fraction": 0.5,
}
MEAN_PARAMETERS = COMMON | {  # of a mean under much noise: small trees
    "objective": "regression",
    "metric": "l2",
    "learning_rate": 0.07,
    "num_leaves": 8,
    "max_bin": 63,
    "feature_fraction": 0.7,
    "boost_from_average": False,
}


class Trees:
    """Boosters over columns of numbers, nan where there is none.

    names : of the columns, in order
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = list(names)
        self.boosters: list[Any] = []
        self.base = 0.0  # log odds of the label among all rows

    def fit(
        self,
        columns: NDArray[np.float32],
        label: NDArray[np.float64],
        fold: NDArray[np.int64],
        seed: int,
        offset: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Learn from columns [R, F] and labels [R]; returns each row's log odds by boosters that never saw its fold.

        fold : int64 [R], 0 … FOLDS − 1, the same for all rows of a user
        offset : float64 [R], known log odds that are no business of the trees, and not in what is returned

        The number of trees is the one that is best over all folds together. A fold without rows, or with one class only
        outside it, is left out.
        """
        lightgbm, outside = lightgbm_module(), np.full(len(label), np.nan)
        self.base = _log_odds(label)
        start = self.base + (np.zeros(len(label)) if offset is None else offset)
        self.boosters, held, curves = [], [], []
        parts = [part for part in range(FOLDS) if (fold == part).any() and len(np.unique(label[fold != part])) == 2]
        with progress("learning trees", max(1, len(parts)) * ROUNDS, "trees") as advance:
            for part in parts:
                inside, beside = (
                    lightgbm.Dataset(columns[rows], label[rows], init_score=start[rows])
                    for rows in (fold != part, fold == part)
                )
                beside.set_reference(inside)
                told: dict[str, dict[str, list[float]]] = {}
                watch = [lightgbm.record_evaluation(told), lambda _: advance(1)]
                settings = PARAMETERS | {"seed": seed + part, "num_threads": tree_threads()}
                self.boosters.append(lightgbm.train(settings, inside, ROUNDS, valid_sets=[beside], callbacks=watch))
                curves.append(np.array(told["valid_0"]["binary_logloss"]) * (fold == part).sum())
                held.append(part)
        if not self.boosters:
            return np.full(len(label), self.base)
        rounds = int(np.argmin(np.sum(curves, axis=0))) + 1
        for part, booster in zip(held, self.boosters, strict=True):
            added = booster.predict(columns[fold == part], num_iteration=rounds, raw_score=True)
            outside[fold == part] = self.base + added
        self.boosters = [_opened(booster.model_to_string(num_iteration=rounds)) for booster in self.boosters]
        return np.where(np.isnan(outside), self.log_odds(columns), outside)

    def log_odds(self, columns: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64 [R]: the mean of the boosters' log odds, at an offset of 0."""
        total = np.full(len(columns), self.base)
        for booster in self.boosters:
            total += booster.predict(columns, raw_score=True) / len(self.boosters)
        return total

    def shares(self, columns: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64 [R, F]: what each column adds to a row's log odds, against the mean row (Shapley values)."""
        total = np.zeros((len(columns), len(self.names)))
        for booster in self.boosters:
            total += booster.predict(columns, pred_contrib=True)[:, :-1] / len(self.boosters)
        return total

    def state(self) -> dict[str, NDArray[Any]]:
        """The boosters' texts and the columns' names as bytes."""
        texts = [booster.model_to_string() for booster in self.boosters]
        held = {f"booster/{n}": np.frombuffer(text.encode(), np.uint8) for n, text in enumerate(texts)}
        return held | {"base": np.array([self.base]), "names": np.frombuffer("\n".join(self.names).encode(), np.uint8)}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take back what `state` gave."""
        self.names = state["names"].tobytes().decode().split("\n")
        self.base = float(state["base"][0])
        count = sum(name.startswith("booster/") for name in state)
        self.boosters = [_opened(state[f"booster/{n}"].tobytes().decode()) for n in range(count)]

    @property
    def parameters(self) -> int:
        """Leaves of all trees."""
        return sum(
            int(text.split("=")[1])
            for b in self.boosters
            for text in b.model_to_string().split("\n")
            if text.startswith("num_leaves=")
        )


class MeanTrees:
    """Boosters for the mean of a number given the columns: as many trees as err least, squared, on rows held out.

    Where they err less than the plain mean by no more than one standard error, there are none: a difference that cannot
    be learnt is not made up.
    """

    def __init__(self) -> None:
        self.boosters: list[Any] = []
        self.bases: list[float] = []  # the mean of the rows that a booster saw
        self.rounds = 0

    def fit(
        self, columns: NDArray[np.float32], target: NDArray[np.float64], fold: NDArray[np.int64], seed: int
    ) -> NDArray[np.float64]:
        """Learn from columns [R, F] and targets [R]; returns each row's mean by boosters that never saw its fold.

        fold : int64 [R], the same for all rows of a user; with fewer than two of them the answer is the plain mean
        """
        lightgbm, parts = lightgbm_module(), np.unique(fold)
        self.boosters, self.bases, self.rounds = [], [], 0
        if len(parts) < 2:
            self.bases = [float(target.mean())]
            return np.full(len(target), self.bases[0])
        errors = np.zeros(MEAN_ROUNDS + 1)
        for part in parts.tolist():
            seen = fold != part
            base = float(target[seen].mean())
            inside = lightgbm.Dataset(columns[seen], target[seen] - base, params={"max_bin": 63, "verbosity": -1})
            beside = inside.create_valid(columns[~seen], target[~seen] - base)
            told: dict[str, dict[str, list[float]]] = {}
            settings = MEAN_PARAMETERS | {"seed": seed + part, "num_threads": tree_threads()}
            watch = [lightgbm.record_evaluation(told)]
            self.boosters.append(lightgbm.train(settings, inside, MEAN_ROUNDS, valid_sets=[beside], callbacks=watch))
            self.bases.append(base)
            held = [float(((target[~seen] - base) ** 2).mean()), *told["valid_0"]["l2"]]
            errors += np.array(held) * (~seen).sum()
        self.rounds = int(np.argmin(errors))
        plain, added = np.zeros(len(target)), np.zeros(len(target))
        for part, booster, base in zip(parts.tolist(), self.boosters, self.bases, strict=True):
            plain[fold == part] = base
            added[fold == part] = self._added(booster, columns[fold == part])
        less = (target - plain) ** 2 - (target - plain - added) ** 2
        if less.mean() <= less.std() / np.sqrt(len(less)):
            self.rounds = 0
            return plain
        return plain + added

    def means(self, columns: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64 [R]: the mean of the boosters' answers."""
        total = np.full(len(columns), float(np.mean(self.bases)))
        for booster in self.boosters:
            total += self._added(booster, columns) / len(self.boosters)
        return total

    def _added(self, booster: Any, columns: NDArray[np.float32]) -> NDArray[np.float64]:
        if self.rounds == 0 or len(columns) == 0:
            return np.zeros(len(columns))
        return np.asarray(booster.predict(columns, num_iteration=self.rounds), np.float64)


def _log_odds(label: NDArray[np.float64]) -> float:
    """Of the share of ones, as if one more of each had been seen."""
    ones = float(label.sum()) + 1.0
    return float(np.log(ones / (len(label) + 2.0 - ones)))


def _opened(text: str) -> Any:
    return lightgbm_module().Booster(model_str=text)


def tree_threads() -> int:
    """Threads of LightGBM: those that wait for each other on a busy machine are many times slower than one."""
    return max(1, (os.cpu_count() or 1) // 2)


def lightgbm_module() -> ModuleType:
    """The module, loaded when the first model is fitted or opened.

    Raises SettingError where the system lacks the OpenMP library that its wheel needs.
    """
    try:
        import lightgbm
    except OSError as error:
        raise SettingError(f"LightGBM cannot be loaded ({error}): on Debian, apt-get install libgomp1.") from error
    return lightgbm
