"""Buy-till-you-die and spend models against published fits, against plain integration, and against simulated customers.

The published figures are of the 2,357 customers of a CD shop that Fader, Hardie & Lee (2005) and others learn from: 39
weeks, a purchase being a day with one.
"""

from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gdtrix, hyp2f1
from scipy.stats import beta as beta_law

from desireline.classical import buy_till_you_die
from desireline.classical.buy_till_you_die import MOST, BuyTillYouDie
from desireline.classical.lifetime_laws import LAWS, NODES, beta_quadrature
from desireline.classical.likelihood import maximise
from desireline.classical.repeats import Repeats, count_repeats
from desireline.classical.spend import GammaGamma
from desireline.core.errors import DataError, ModelError, SettingError

PUBLISHED = {  # Fader, Hardie & Lee (2005), table 2; MBG/NBD as the R package BTYDplus estimates it
    "bg-nbd": {"r": 0.2426, "alpha": 4.4136, "a": 0.7930, "b": 2.4262},
    "mbg-nbd": {"r": 0.525, "alpha": 6.183, "a": 0.891, "b": 1.614},
    "pareto-nbd": {"r": 0.553, "alpha": 10.578, "s": 0.606, "beta": 11.669},
}
TRUE = {  # of the simulated shops, in weeks
    "bg-nbd": {"r": 0.8, "alpha": 5.0, "a": 0.8, "b": 2.5},
    "mbg-nbd": {"r": 0.8, "alpha": 5.0, "a": 0.8, "b": 2.5},
    "pareto-nbd": {"r": 0.8, "alpha": 5.0, "s": 0.7, "beta": 12.0},
}
GAP, HORIZON = 6.0, 13.0  # weeks


def model(law, values):
    made = BuyTillYouDie(law)
    made.load({"values": np.array(list(values.values())), "unit_days": np.array([7.0])})
    return made


def weeks(*customers):
    """Repeats of customers given as (x, t_x, T)."""
    return Repeats(*np.array(customers, float).T, unit_days=7.0)


@pytest.fixture(scope="module")
def shop(shared_data):
    log = pl.read_parquet(shared_data / "cdnow" / "cdnow_master.parquet")
    log = log.join(pl.read_parquet(shared_data / "cdnow" / "sample_ids.parquet"), on="customer_id")
    cut = pl.date(1997, 9, 30)
    log = log.filter(pl.col("date") <= cut).sort("customer_id", "date")
    log = log.with_columns(pl.col("date").cast(pl.Int32).cast(pl.Int64).alias("day"))
    held = log.group_by("customer_id", maintain_order=True).len()["len"].cast(pl.Int64).to_numpy()
    day = log["day"].to_numpy()
    as_of = np.full(len(held), np.datetime64("1997-09-30").astype(int))
    return count_repeats(np.append(0, np.cumsum(held)), day, as_of, log["dollars"].to_numpy(), unit_days=7.0)


@cache
def simulated(law, count=30_000, seed=0):
    """Customers bought from TRUE's law: what is known of them at T, and two facts of what they do then.

    Returns Repeats, purchases in (T, T + HORIZON] and purchases in (T + GAP, T + GAP + HORIZON].
    """
    rng = np.random.default_rng(seed)
    r, alpha, first, second = TRUE[law].values()
    rate = rng.gamma(r, 1 / alpha, count)
    age = rng.uniform(20, 60, count)
    if law == "pareto-nbd":
        lasts, most = rng.exponential(1 / rng.gamma(first, 1 / second, count)), np.full(count, np.inf)
    else:
        lasts, most = np.full(count, np.inf), rng.geometric(rng.beta(first, second, count)) - (law == "mbg-nbd")
    known, last, soon, later = (np.zeros(count) for _ in range(4))
    time, row, purchase = np.zeros(count), np.arange(count), 0
    while len(row):
        purchase += 1
        time[row] += rng.exponential(1 / rate[row])
        row = row[(purchase <= most[row]) & (time[row] <= np.minimum(lasts, age + GAP + HORIZON)[row])]
        now, then = time[row], age[row]
        known[row] += now <= then
        last[row] = np.where(now <= then, now, last[row])
        soon[row] += (now > then) & (now <= then + HORIZON)
        later[row] += now > then + GAP
    return Repeats(known, last, age, unit_days=7.0), soon, later


def integrated(law, values, x, last, age, horizon, gap, points=600):
    """Density, P(still there), expected purchases and P(silence), plainly integrated over two grids of equal chance.

    Only says what one customer of known rate and hazard does.
    """
    level = (np.arange(points) + 0.5) / points
    r, alpha, first, second = values.values()
    rate = gdtrix(alpha, r, level)[:, None]
    if law == "pareto-nbd":
        leaves = gdtrix(second, first, level)[None, :]
        there = rate**x * np.exp(-(rate + leaves) * age)
        ends = np.exp(-(rate + leaves) * last) - np.exp(-(rate + leaves) * age)
        gone = rate**x * leaves / (rate + leaves) * ends
        expected = rate / leaves * -np.expm1(-leaves * horizon)
        buys = np.exp(-leaves * gap) * rate / (rate + leaves) * -np.expm1(-(rate + leaves) * horizon)
    else:
        chances = x + (law == "mbg-nbd")  # to leave
        p = beta_law.ppf(level, first, second)[None, :]
        there = rate**x * (1 - p) ** chances * np.exp(-rate * age)
        gone = rate**x * p * (1 - p) ** max(chances - 1, 0) * np.exp(-rate * last) * (chances > 0)
        expected = -np.expm1(-rate * p * horizon) / p
        buys = np.exp(-rate * p * gap) * -np.expm1(-rate * horizon)
    both = (there + gone).mean()
    return both, there.mean() / both, (there * expected).mean() / both, 1 - (there * buys).mean() / both


# published fits


@pytest.mark.parametrize(("law", "likelihood"), [("bg-nbd", -9582.4), ("mbg-nbd", None), ("pareto-nbd", -9595.0)])
def test_the_published_fit_is_found(shop, law, likelihood):
    made = BuyTillYouDie(law)
    made.fit(shop)
    assert made.named == pytest.approx(PUBLISHED[law], rel=0.01)
    if likelihood is not None:
        assert made.log_likelihood(shop).sum() == pytest.approx(likelihood, abs=0.06)


def test_the_published_spend_is_found(shop):
    """Fader & Hardie (2013): 946 customers with a repeat, whose repeat days' mean is 35.08."""
    assert (shop.frequency > 0).sum() == 946
    assert shop.value[shop.frequency > 0].mean() == pytest.approx(35.08, abs=0.01)
    made = GammaGamma()
    made.fit(shop)
    assert made.named == pytest.approx({"p": 6.25, "q": 3.74, "v": 15.44}, rel=0.01)


def test_the_published_customers():
    """Fader, Hardie & Lee (2005) and Hardie's sheet to it; the R package BTYD's walkthrough, customer 1516."""
    bg, pareto = (model(law, PUBLISHED[law]) for law in ["bg-nbd", "pareto-nbd"])
    assert bg.expected_purchases(weeks((2, 30.43, 38.86)), 39.0) == pytest.approx([1.226], abs=2e-3)
    asked = weeks((26, 30.86, 31.0))
    assert pareto.expected_purchases(asked, 52.0) == pytest.approx([25.46], abs=0.01)
    assert pareto.alive_probability(asked) == pytest.approx([0.9979], abs=1e-4)
    new = weeks((0, 0, 0))
    assert pareto.expected_purchases(new, 52.0) == pytest.approx([1.4734], abs=2e-3)
    horizons = [0.1429, 1.0, 3.0, 31.8571, 32.0, 78.0]
    found = [float(bg.expected_purchases(new, horizon)[0]) for horizon in horizons]
    assert found == pytest.approx([0.0078, 0.0532, 0.1506, 1.0405, 1.0437, 1.8576], abs=5e-4)


def test_the_published_spenders():
    """Fader & Hardie's (2013) sheet: expected value of six customers of the CD shop."""
    made = GammaGamma()
    made.load({"values": np.array([6.25, 3.74, 15.44])})
    x, value = np.array([2.0, 1, 0, 7]), np.array([22.35, 11.77, 0, 73.74])
    asked = Repeats(x, x, x + 1, value)
    assert made.expected_value(asked) == pytest.approx([24.65, 18.91, 35.17, 71.46], abs=0.06)


# plain integration, closed forms


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("x", "last", "age"), [(0, 0, 30), (1, 4, 30), (3, 28, 30), (12, 50, 60)])
def test_every_answer_equals_plain_integration(law, x, last, age):
    values = {**TRUE[law], "r": 1.7} | ({"s": 1.6} if law == "pareto-nbd" else {"a": 1.6})  # grids reach few extremes
    density, there, expected, silence = integrated(law, values, x, last, age, HORIZON, GAP)
    made, asked = model(law, values), weeks((x, last, age))
    assert np.exp(made.log_likelihood(asked)) == pytest.approx([density], rel=3e-3)
    assert made.alive_probability(asked) == pytest.approx([there], abs=2e-3)
    assert made.expected_purchases(asked, HORIZON) == pytest.approx([expected], rel=5e-3)
    assert made.silence_probability(asked, HORIZON, GAP) == pytest.approx([silence], abs=2e-3)
    *_, silence = integrated(law, values, x, last, age, HORIZON, 0.0)
    assert made.silence_probability(asked, HORIZON) == pytest.approx([silence], abs=2e-3)


@pytest.mark.parametrize("law", ["bg-nbd", "mbg-nbd"])
def test_the_quadrature_equals_the_papers_hypergeometric_functions(law):
    """Fader, Hardie & Lee (2005), equation 10; and E[(1 + pz)^−(r + x)] is Gauss's function of −z."""
    made, asked = model(law, TRUE[law]), weeks((0, 0, 3), (1, 4, 30), (3, 28, 30), (40, 50, 60))
    r, alpha, a, b = TRUE[law].values()
    x, rate, stays = asked.frequency, alpha + asked.age, b + asked.frequency + (law == "mbg-nbd")
    for span in [1.0, 39.0, 300.0]:
        series = hyp2f1(r + x, stays, a + stays - 1, span / (rate + span))
        bought = (a + stays - 1) / (a - 1) * (1 - (rate / (rate + span)) ** (r + x) * series)
        found = made.expected_purchases(asked, span)
        assert found == pytest.approx(made.alive_probability(asked) * bought, rel=1e-6)
        still = hyp2f1(r + x, a, a + stays, -span / rate)
        waits = (rate / (rate + 5)) ** (r + x) * hyp2f1(r + x, a, a + stays, -span / (rate + 5))
        silence = 1 - made.alive_probability(asked) * (still - waits)
        assert made.silence_probability(asked, 5.0, span) == pytest.approx(silence, abs=1e-7)


def test_the_quadrature_is_exact_for_polynomials():
    b = np.array([0.3, 4.0, 900.0])
    points, weights = beta_quadrature(0.7, b)
    assert weights.sum(axis=1) == pytest.approx(np.ones(3))
    for degree in [1, 2, 2 * NODES - 1]:
        wanted = np.exp(np.log((0.7 + np.arange(degree)) / (0.7 + b[:, None] + np.arange(degree))).sum(axis=1))
        assert (weights * points**degree).sum(axis=1) == pytest.approx(wanted, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("law", "parameter", "value"), [("bg-nbd", "a", 1.0), ("pareto-nbd", "s", 1.0)])
def test_a_parameter_of_1_is_one_like_any_other(law, parameter, value):
    """The papers' formulas divide by a − 1 and s − 1."""
    asked = weeks((2, 20, 30))
    at, near = (model(law, TRUE[law] | {parameter: value + by}) for by in [0, 1e-7])
    assert at.expected_purchases(asked, HORIZON) == pytest.approx(near.expected_purchases(asked, HORIZON), rel=1e-6)


# simulated shops


@pytest.mark.parametrize("law", LAWS)
def test_the_parameters_of_a_simulated_shop_are_found(law):
    known, _, _ = simulated(law, 15_000)
    made = BuyTillYouDie(law)
    made.fit(known)
    assert made.named == pytest.approx(TRUE[law], rel=0.15)
    above = made.log_likelihood(known).sum() - model(law, TRUE[law]).log_likelihood(known).sum()
    assert 0 <= above < 9.2  # half of chi-square of 4 degrees of freedom, but for one shop in a thousand


@pytest.mark.parametrize("law", LAWS)
def test_predictions_come_true_in_a_simulated_shop(law):
    """Silence with and without a gap, and purchases, among customers of like history: within four standard errors."""
    known, soon, later = simulated(law)
    made = model(law, TRUE[law])
    silence, gapped = made.silence_probability(known, HORIZON), made.silence_probability(known, HORIZON, GAP)
    expected = made.expected_purchases(known, HORIZON)
    quiet = known.age - known.recency
    x = known.frequency
    groups = [x == 0, x == 1, (x > 1) & (x < 6), x > 5, (x > 0) & (quiet > 20), (x > 0) & (quiet < 3)]
    for group in groups:
        assert group.sum() > 500
        for told, came in [(silence, soon == 0), (gapped, later == 0), (expected, soon)]:
            error = came[group].std() / np.sqrt(group.sum())
            assert abs(came[group].mean() - told[group].mean()) < 4 * error
    assert abs(gapped - silence).max() > 0.01  # the gap does tell: four errors would not hold the one for the other


def test_silence_after_a_gap_is_not_silence_since_the_gap_began():
    """Forgetting who buys, or leaves, in the gap is seen by the check above."""
    known, _, later = simulated("bg-nbd")
    made = model("bg-nbd", TRUE["bg-nbd"])
    wrong = made.silence_probability(known, HORIZON)
    group = known.frequency > 5
    error = (later == 0)[group].std() / np.sqrt(group.sum())
    assert abs((later == 0)[group].mean() - wrong[group].mean()) > 4 * error


def test_simulated_spend_is_found():
    rng = np.random.default_rng(3)
    p, q, v = 4.0, 3.5, 40.0
    x = rng.integers(0, 9, 20_000).astype(float)
    scale = rng.gamma(q, 1 / v, len(x))
    value = np.where(x > 0, rng.gamma(np.maximum(p * x, 1)) / scale / np.maximum(x, 1), 0)
    known = Repeats(x, x, x + 1, value)
    made = GammaGamma()
    made.fit(known)
    assert made.named == pytest.approx({"p": p, "q": q, "v": v}, rel=0.05)
    for days in [0, 1, 8]:
        group = x == days
        wanted, error = (p / scale)[group], (p / scale)[group].std() / np.sqrt(group.sum())
        assert abs(made.expected_value(known)[group].mean() - wanted.mean()) < 4 * error


# properties


def histories(least=1):
    """Customers of up to 300 repeats in up to ten years of weeks."""
    one = st.tuples(st.integers(0, 300), st.floats(0.01, 1), st.floats(0.2, 520))
    return st.lists(one, min_size=least, max_size=8).map(
        lambda rows: weeks(*[(x, share * age if x else 0.0, age) for x, share, age in rows])
    )


positive = st.floats(-5, 5).map(np.exp)


@pytest.mark.parametrize("law", LAWS)
@given(asked=histories(), values=st.tuples(positive, positive, positive, positive), gap=st.floats(0, 60))
def test_probabilities_are_probabilities_whatever_the_parameters(law, asked, values, gap):
    made = model(law, dict(zip("wxyz", values, strict=True)))
    alive, silence = made.alive_probability(asked), made.silence_probability(asked, 9.0, gap)
    expected = made.expected_purchases(asked, 9.0)
    assert np.isfinite(made.log_likelihood(asked)).all()
    assert ((alive >= 0) & (alive <= 1)).all()
    assert (silence >= 1 - alive - 1e-9).all()
    assert (silence <= 1).all()
    assert (expected >= -1e-12).all()
    assert (1 - made.silence_probability(asked, 9.0) <= expected + 1e-9).all()  # Markov's inequality
    assert (made.silence_probability(asked, 18.0, gap) <= silence + 1e-9).all()
    assert (made.silence_probability(asked, 9.0, gap + 1) >= silence - 1e-9).all()
    assert (made.expected_purchases(asked, 18.0) >= expected - 1e-9).all()


@pytest.mark.parametrize("law", LAWS)
@given(asked=histories(least=2), seed=st.integers(0, 99))
def test_scores_depend_on_the_own_row_only(law, asked, seed):
    made = model(law, TRUE[law])
    which = np.random.default_rng(seed).permutation(len(asked))[:-1]
    some = asked.rows(which)
    for ask in [made.log_likelihood, made.alive_probability, lambda a: made.expected_purchases(a, 4.0)]:
        np.testing.assert_allclose(ask(some), ask(asked)[which], rtol=1e-12)
    apart, together = made.silence_probability(some, 4.0, 2.0), made.silence_probability(asked, 4.0, 2.0)
    np.testing.assert_allclose(apart, together[which], rtol=1e-12)


@given(asked=histories(), seed=st.integers(0, 99))
def test_grouping_equal_customers_keeps_the_likelihood(asked, seed):
    many = asked.rows(np.random.default_rng(seed).integers(0, len(asked), 50))
    pattern, held = many.distinct()
    assert held.sum() == 50
    assert len(pattern) <= len(asked)
    made = model("pareto-nbd", TRUE["pareto-nbd"])
    assert held @ made.log_likelihood(pattern) == pytest.approx(made.log_likelihood(many).sum())


def test_a_customer_without_a_repeat_may_have_left_but_under_bg_nbd():
    asked = weeks((0, 0, 500))
    alive = {law: float(model(law, TRUE[law]).alive_probability(asked)[0]) for law in LAWS}
    assert alive["bg-nbd"] == 1
    assert alive["mbg-nbd"] < 0.2
    assert alive["pareto-nbd"] < 0.2


@pytest.mark.parametrize("law", LAWS)
def test_the_unit_of_time_does_not_matter(law):
    known, _, _ = simulated(law, 1500)
    days = Repeats(known.frequency, known.recency * 7, known.age * 7)
    by_week, by_day = BuyTillYouDie(law), BuyTillYouDie(law)
    by_week.fit(known)
    by_day.fit(days)
    week = by_week.silence_probability(known, HORIZON, GAP)
    assert by_day.silence_probability(days, HORIZON * 7, GAP * 7) == pytest.approx(week, abs=1e-4)
    with pytest.raises(ModelError, match="in units of 7 days and is asked in units of 1;"):
        by_week.alive_probability(days)


@pytest.mark.parametrize("law", LAWS)
def test_a_loaded_model_answers_like_the_one_that_was_saved(law):
    known, _, _ = simulated(law, 1500)
    made, again = BuyTillYouDie(law), BuyTillYouDie(law)
    made.fit(known)
    again.load(made.state())
    assert again.parameters == 4
    assert (again.silence_probability(known, 4.0) == made.silence_probability(known, 4.0)).all()


def test_customers_who_do_not_differ_are_no_error():
    """Everybody buys every week and nobody leaves: no finite optimum, yet sensible answers."""
    known = weeks(*[(20, 20, 20.0 + n / 10) for n in range(10)])
    for law in LAWS:
        made = BuyTillYouDie(law)
        made.fit(known)
        assert (made.alive_probability(known) > 0.98).all()
        assert made.expected_purchases(known, 5.0) == pytest.approx(np.full(10, 5.0), rel=0.1)


def test_of_more_patterns_than_fit_some_customers_are_drawn():
    rng = np.random.default_rng(0)
    age = rng.uniform(10, 50, MOST + 20_000)
    x = rng.integers(0, 3, len(age)).astype(float)
    known = Repeats(x, np.where(x > 0, age * 0.7, 0), age)
    drawn = known.sample(1000, 5)
    assert len(drawn) == 1000
    assert set(drawn.age) <= set(age)
    assert (known.sample(1000, 5).age == drawn.age).all()
    assert len(known.sample(MOST, 0).distinct()[0]) <= MOST < len(known.distinct()[0])


def test_a_large_shop_is_learnt_from_a_sample_of_it(monkeypatch):
    monkeypatch.setattr(buy_till_you_die, "MOST", 4000)
    known, _, _ = simulated("bg-nbd")
    by_sample, by_hand = BuyTillYouDie("bg-nbd"), BuyTillYouDie("bg-nbd")
    by_sample.fit(known, seed=7)
    by_hand.fit(known.sample(4000, 7))
    assert by_sample.named == pytest.approx(by_hand.named, rel=0.01)


# summaries, errors


def test_a_day_counts_once_and_the_first_day_is_no_repeat():
    offsets, day = np.array([0, 5, 6]), np.array([10, 10, 24, 24, 38, 30])
    value = np.array([1.0, 2, 30, 10, 20, 5])
    found = count_repeats(offsets, day, np.array([45, 44]), value, unit_days=7.0)
    assert found.frequency.tolist() == [2, 0]
    assert found.recency.tolist() == [4, 0]
    assert found.age.tolist() == [5, 2]
    assert found.value.tolist() == [30, 0]


@pytest.mark.parametrize(
    ("x", "last", "age", "message"),
    [
        (1, 5, 4, r"Customer 1 .*after the moment of asking"),
        (1, 0, 4, "both 0 or both above 0"),
        (0, 1, 4, "both 0 or both above 0"),
        (-1, -1, 4, "negative"),
        (1.5, 1, 4, "whole number"),
        (1, 1, np.nan, "missing"),
    ],
)
def test_a_contradiction_is_named(x, last, age, message):
    with pytest.raises(DataError, match=message):
        weeks((1, 1, 2), (x, last, age))


def test_a_customer_without_a_purchase_is_refused():
    with pytest.raises(DataError, match=r"Customer 1 .*never bought"):
        count_repeats(np.array([0, 1, 1]), np.array([3]), np.array([9, 9]))


@pytest.mark.parametrize("law", LAWS)
def test_without_customers_or_repeats_nothing_is_learnt(law):
    with pytest.raises(DataError, match="no customer to learn from"):
        BuyTillYouDie(law).fit(Repeats(np.empty(0), np.empty(0), np.empty(0)))
    with pytest.raises(DataError, match="None of the 3 customers bought on a second day"):
        BuyTillYouDie(law).fit(weeks((0, 0, 3), (0, 0, 4), (0, 0, 5)))
    assert len(model(law, TRUE[law]).silence_probability(Repeats(*np.zeros((3, 0)), unit_days=7.0), 4.0, 2.0)) == 0


def test_spend_without_values_is_refused():
    with pytest.raises(DataError, match="have no value"):
        GammaGamma().fit(weeks((1, 1, 2)))
    with pytest.raises(DataError, match="None of the 1 customers has a day"):
        GammaGamma().fit(Repeats(np.ones(1), np.ones(1), np.ones(1), np.zeros(1)))


def test_spend_without_a_mean_is_refused():
    """Mean values with a tail as heavy as 1 / √value."""
    value = (np.arange(1000) + 0.5) ** -2.0
    x = np.full(len(value), 20.0)
    with pytest.raises(DataError, match="no mean over customers exists"):
        GammaGamma().fit(Repeats(x, x, x, value))


def test_a_search_without_an_end_is_an_error():
    with pytest.raises(DataError, match="likelihood of nothing has no optimum"):
        maximise(lambda values: float("nan"), [[1.0, 1.0]], "nothing")


def test_an_unknown_law_or_span_is_refused():
    with pytest.raises(SettingError, match="there are bg-nbd, mbg-nbd, pareto-nbd"):
        BuyTillYouDie("nbd")
    made, asked = model("bg-nbd", TRUE["bg-nbd"]), weeks((1, 1, 2))
    with pytest.raises(SettingError, match="a gap of 0 or more"):
        made.silence_probability(asked, 4.0, -1.0)
    with pytest.raises(SettingError, match="a horizon above 0"):
        made.expected_purchases(asked, 0.0)
