"""Guess what happens in an event: its type's source, the types with their roles, and what an event is worth."""

from __future__ import annotations

from dataclasses import dataclass

from desireline.schema.mapping import text_of
from desireline.schema.model import EventSpec, EventType, Role, Rule
from desireline.schema.names import quoted
from desireline.schema.presets import event_word
from desireline.schema.sample import Column, Sample

MOST_TYPES = 100
FEW_TYPES = 12  # so many different texts may be what happened, by whatever name the column goes


@dataclass(frozen=True)
class GuessedEvent:
    """Where an event's type and value come from; `source` is the type's column, None when every row has one type."""

    spec: EventSpec
    types: dict[str, EventType]
    value: str | None
    source: str | None


def guess_event(view: Sample, has_item: bool) -> GuessedEvent:
    """Guess an event's type and value; says what was guessed in the sample's notes."""
    column = _type_column(view)
    if column is not None:
        view.take(column)
        view.note("event.column", f"by its name; {column.distinct} types")
        return GuessedEvent(EventSpec(column=column.name), _types(view, column), _value(view, None), column.name)
    for derive in (_by_quantity, _by_click):
        derived = derive(view)
        if derived is not None:
            return derived
    return _constant(view, has_item)


def _type_column(view: Sample) -> Column | None:
    for column in view.named("event"):
        few = 0 < column.distinct <= MOST_TYPES and (column.distinct <= 20 or column.distinct < 0.2 * column.filled)
        if few and not column.is_fraction and not column.is_text:
            return column
    return None


def _types(view: Sample, column: Column) -> dict[str, EventType]:
    """The types of the whole sample, in the order in which they usually happen, then by how often."""
    names = text_of(view.whole[column.name], "event.column").str.strip_chars().drop_nulls()
    counted = [name for name, _ in sorted(names.value_counts().iter_rows(), key=lambda row: (-row[1], row[0]))]
    types: dict[str, EventType] = {}
    unknown: list[str] = []
    for name in sorted(counted[:MOST_TYPES], key=lambda name: event_word(name)[0]):
        roles = event_word(name)[1]
        types[name] = EventType(roles=list(roles or ()))
        if roles is None:
            unknown.append(name)
            view.note(f"types.{name}", "an unknown word: it has no role until you give it one", True)
    if not any("target" in kind.roles for kind in types.values()):
        for name in unknown:
            types[name] = EventType(roles=["target", "positive"])
        view.note("types", "no type has a name that is known, so all of them became targets", True)
    if column.numbers is not None:
        view.note("event.column", f"{column.name} holds numbers; what they mean is not known", True)
    view.note("types", "those of the sample; rows with others go to quarantine (unknown_types)")
    return types


def _by_quantity(view: Sample) -> GuessedEvent | None:
    quantity = next((c for c in view.named("quantity") if c.numbers is not None and not c.leads_with_zero), None)
    if quantity is None or quantity.numbers is None:
        return None
    name = quoted(quantity.name)
    value = _value(view, quantity)
    view.take(quantity)
    negative = int((quantity.numbers < 0).sum())
    seen = (
        f"{negative} of the sample's {view.height} rows are negative" if negative else "none is negative in the sample"
    )
    view.note(
        "event.rules", f"no column names a type; the sign of {quantity.name} tells purchases from cancellations: {seen}"
    )
    if zeros := int((quantity.numbers == 0).sum()):
        view.note(
            "event.rules",
            f"{zeros} rows of the sample have a {quantity.name} of 0: no rule holds, they go to quarantine",
        )
    rules = [Rule(when=f"{name} > 0", type="purchase"), Rule(when=f"{name} < 0", type="cancellation")]
    types = {"purchase": EventType(roles=["target", "positive"]), "cancellation": EventType(roles=["negative"])}
    return GuessedEvent(EventSpec(rules=rules), types, value, quantity.name)


def _by_click(view: Sample) -> GuessedEvent | None:
    click = next((c for c in view.named("click") if c.numbers is not None and c.numbers.is_in([0.0, 1.0]).all()), None)
    if click is None:
        return None
    name = quoted(view.take(click).name)
    text = f"no column names a type; {click.name} tells what was shown and clicked from what was only shown"
    view.note("event.rules", text, True)
    rules = [Rule(when=f"{name} == 1", type="click"), Rule(when=f"{name} == 0", type="impression")]
    types = {"impression": EventType(), "click": EventType(roles=["target", "positive"])}
    return GuessedEvent(EventSpec(rules=rules), types, _value(view, None), click.name)


def _constant(view: Sample, has_item: bool) -> GuessedEvent:
    roles: list[Role] = ["target", "positive"]
    rating = next((c for c in view.named("rating") if c.numbers is not None), None)
    text = any(c.is_text and c.mean_length >= 60 for c in view.free)
    if rating is not None:
        view.take(rating)
        value: str | None = quoted(rating.name)
        name, roles = "rating", ["target", "positive", "explicit"]
        view.note("value", f"{rating.name}; to count only good ones as positive, set positive: value >= 4", True)
    else:
        value = _value(view, None)
        name = view.preset.constant
        if name == "purchase" and value is None:
            name = "review" if text else "interaction"
    few = [c.name for c in view.free if c.is_string and c.numbers is None and 1 < c.distinct <= FEW_TYPES]
    may = f"; {few[0]} might name it (event: {{column: {few[0]}}})" if few else ""
    view.note("event.constant", f"no column names a type: every row is one {name}{may}", bool(few))
    return GuessedEvent(EventSpec(constant=name), {name: EventType(roles=roles)}, value, None)


def _value(view: Sample, quantity: Column | None) -> str | None:
    """What an event is worth: an amount, or a price, times the quantity where there is one."""
    amounts = [c for c in view.named("value") if c.numbers is not None and "`" not in c.name and not c.leads_with_zero]
    prices = {c.name for c in view.named("price")}
    quantity = quantity or next((c for c in view.named("quantity") if c.numbers is not None), None)
    total = next((c for c in amounts if c.name not in prices), None)
    price = next((c for c in amounts if c.name in prices), None)
    chosen = total or price
    if chosen is None:
        return None
    view.take(chosen)
    if chosen is price and quantity is not None:
        view.take(quantity)
        view.note("value", "a price for one, times how many")
        return f"{quoted(quantity.name)} * {quoted(price.name)}"
    others = [c.name for c in amounts if c is not chosen]
    view.note("value", "by its name" + (f"; {', '.join(others)} became fields" if others else ""), False)
    return quoted(chosen.name)
