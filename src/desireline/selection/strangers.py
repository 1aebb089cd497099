"""Who has no history that a model can read: no event, or none about an item that it knows.

A network has nothing to begin from there, and what has no history falls back to counts of all times. So whoever comes
like that is answered with what everybody does of late, alone and among all users alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from desireline.classical.popularity import RecentPopularity
from desireline.selection.fitted import Fitted, Panel
from desireline.tasks.interface import Chunks
from desireline.tasks.questions import Questions, training_histories, without_known_item
from desireline.tasks.recommend import chunked

FALLBACK = RecentPopularity.name


def item_predictions(fitted: Fitted, questions: Questions) -> Chunks:
    """Scores [hi − lo, items] of questions [lo, hi): the model's, for strangers the fallback's."""
    strange = without_known_item(questions)
    everybodys = recent_popularity(fitted) if strange.any() else np.empty(0, np.float32)
    if strange.all():  # the model is not asked: it may be unable to read a history without any event
        for lo, hi in chunked(len(questions), len(everybodys)):
            yield lo, hi, np.tile(everybodys, (hi - lo, 1))
        return
    for lo, hi, scores in fitted.predictions(questions):
        if strange[lo:hi].any():
            scores[strange[lo:hi]] = everybodys
        yield lo, hi, scores


def recent_popularity(fitted: Fitted) -> NDArray[np.float32]:
    """float32 [items]: counts before the model's cut that fade with age, as fast as validation chose, where it did."""
    models = fitted.predictor.models() if isinstance(fitted.predictor, Panel) else [fitted]
    constants: dict[str, float] = next((m.info["constants"] for m in models if m.name == FALLBACK), {})
    prepared = fitted.prepared
    counted = RecentPopularity(**constants)
    counted.fit(training_histories(prepared.before, prepared.cut_us), len(prepared.vocabularies["item"]))
    return counted.scores


def said_of(questions: Questions) -> str:
    """Why the fallback answers a stranger's question, in words."""
    nothing = bool(questions.place[0] < questions.timeline.offsets[questions.user[0]])
    return f"{'no history' if nothing else 'no item of this history is known'}: answered by {FALLBACK}"
