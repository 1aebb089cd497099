"""Columns' names as people write them: compared without case and signs, quoted in expressions, made field names."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Collection

from desireline.schema.model import RESERVED


def plain(name: str) -> str:
    """A name without case, width and signs, to compare with: `Customer ID`, `customerId` and `CUSTOMER-ID` are one.

    Examples
    --------
    >>> plain("Customer ID"), plain("invoice_date"), plain("用户ＩＤ")
    ('customerid', 'invoicedate', '用户id')
    """
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def words(name: str) -> list[str]:
    """The words of a name, in lower case.

    Examples
    --------
    >>> words("InvoiceDate"), words("user-item_affinity 0"), words("customerID")
    (['invoice', 'date'], ['user', 'item', 'affinity', '0'], ['customer', 'id'])
    """
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", unicodedata.normalize("NFKC", name))
    return [word for word in re.split(r"[\W_]+", name.casefold()) if word]


def quoted(name: str) -> str:
    """A column's name as an expression writes it: in backticks where it would be read as something else."""
    simple = name.isidentifier() and not keyword.iskeyword(name) and name not in ("True", "False", "None")
    return name if simple else f"`{name}`"


def field_name(name: str, taken: Collection[str]) -> str:
    """A field's name made of a column's: an identifier, neither reserved nor taken.

    Examples
    --------
    >>> field_name("user-item affinity", []), field_name("2nd", []), field_name("Item", []), field_name("a", ["a"])
    ('user_item_affinity', 'field_2nd', 'item_field', 'a_2')
    """
    made = "_".join(words(name)) or "field"
    made = made if made.isidentifier() else f"field_{made}"
    made = f"{made}_field" if made in RESERVED else made
    made = made if made.isidentifier() else "field"
    unique, number = made, 2
    while unique in taken:
        unique, number = f"{made}_{number}", number + 1
    return unique
