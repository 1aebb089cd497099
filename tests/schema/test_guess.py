"""What is guessed from common files, and what is named as ambiguous."""

from __future__ import annotations

import os
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from desireline.core.errors import SchemaError
from desireline.schema.guess import Guess, guess
from desireline.schema.mapping import map_rows
from desireline.schema.model import FieldSpec

SHARED = Path(os.environ.get("DESIRELINE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def data(name: str) -> pl.DataFrame:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not here; set DESIRELINE_DATA to the folder of the real data")
    return pl.read_parquet(SHARED / name)


def unclear(found: Guess) -> set[str]:
    return {note.key for note in found.notes if note.ambiguous}


def said(found: Guess, key: str) -> str:
    return " ".join(note.text for note in found.notes if note.key == key)


def roles(found: Guess) -> dict[str, list[str]]:
    return {name: list(kind.roles) for name, kind in found.schema.types.items()}


def csv(text: str) -> pl.DataFrame:
    return pl.read_csv(text.encode(), infer_schema=False)


WANTED = ["target", "positive"]


def shop(rows: int = 200) -> pl.DataFrame:
    """A small shop as its csv is read, everything text: users, items, types, epoch seconds, prices and categories."""
    types = ["view", "view", "cart", "purchase", "cancel"]
    return pl.DataFrame(
        {
            "user_id": [f"u{k % 17:03d}" for k in range(rows)],
            "item_id": [f"i{k % 23:02d}" for k in range(rows)],
            "event_type": [types[k % 5] for k in range(rows)],
            "timestamp": [str(1_700_000_000 + 777 * k) for k in range(rows)],
            "price": [f"{5 + k % 23 % 9:.2f}" for k in range(rows)],
            "category": [f"c{k % 23 // 5}" for k in range(rows)],
        }
    )


def test_a_shop_of_text() -> None:
    found = guess(shop(), "shop.csv")
    schema = found.schema
    assert (schema.user, schema.item, schema.event.column, schema.value) == (
        "user_id",
        "item_id",
        "event_type",
        "price",
    )
    assert (schema.time.column, schema.time.format) == ("timestamp", "epoch_s")
    assert roles(found) == {"view": WANTED, "cart": WANTED, "purchase": WANTED, "cancel": ["negative"]}
    assert list(schema.types) == ["view", "cart", "purchase", "cancel"]
    assert schema.fields == {"category": FieldSpec(column="category", kind="category", of="item")}
    assert not unclear(found)
    assert "2023-11-1" in said(found, "time.format")
    assert map_rows(shop(), schema, 1).rejected.is_empty()


def test_the_contract_s_shop(tmp_path: Path) -> None:
    if not (SHARED.parent / "contract.py").exists():
        pytest.skip(f"{SHARED.parent / 'contract.py'} is not here")
    sys.path.insert(0, str(SHARED.parent))
    try:
        import contract
    finally:
        sys.path.pop(0)
    log = pl.read_csv(contract.shop(tmp_path), infer_schema=False)
    found = guess(log, "shop.csv")
    assert found.schema.value == "price"
    assert list(found.schema.types) == ["view", "cart", "purchase", "cancel"]
    assert len(map_rows(log, found.schema, 1).events) == len(log)


def test_online_retail() -> None:
    log = data("online_retail_ii/online_retail_ii.parquet")
    found = guess(log, "online_retail_ii.parquet")
    schema = found.schema
    assert (schema.user, schema.item, schema.time.column) == ("customer_id", "stock_code", "invoice_date")
    assert [(rule.when, rule.type) for rule in schema.event.rules] == [
        ("quantity > 0", "purchase"),
        ("quantity < 0", "cancellation"),
    ]
    assert schema.value == "quantity * unit_price"
    assert roles(found) == {"purchase": WANTED, "cancellation": ["negative"]}
    assert schema.fields == {
        "invoice": FieldSpec(column="invoice", kind="category"),
        "description": FieldSpec(column="description", kind="text", of="item"),
        "country": FieldSpec(column="country", kind="category"),
    }
    part = log.head(50_000)
    mapped = map_rows(part, schema, 1)
    users = part["customer_id"].is_not_null()
    assert len(mapped.events) == users.sum()  # nobody else is rejected
    assert mapped.events["value"].sum() == pytest.approx((part["quantity"] * part["unit_price"]).filter(users).sum())


def test_online_retail_as_text() -> None:
    log = data("online_retail_ii/online_retail_ii.parquet").gather_every(50).with_columns(pl.all().cast(pl.String))
    schema = guess(log, "online_retail_ii.csv").schema
    assert schema == guess(data("online_retail_ii/online_retail_ii.parquet"), "x").schema.model_copy(
        update={"time": schema.time, "fields": schema.fields}
    )
    assert schema.time.format == "iso"
    assert schema.fields["invoice"].kind == "category"  # C489449 is no number


def test_taobao() -> None:
    log = data("taobao_userbehavior_sample/userbehavior_head.parquet")
    found = guess(log, "userbehavior_head.parquet")
    assert found.schema.time.format == "epoch_s"
    assert roles(found) == {"pv": WANTED, "fav": WANTED, "cart": WANTED, "buy": WANTED}
    assert found.schema.fields == {"category_id": FieldSpec(column="category_id", kind="category", of="item")}
    assert found.schema.value is None
    mapped = map_rows(log, found.schema, 1)
    plausible = log["timestamp"].is_between(31_536_000, 1_800_000_000)
    assert len(mapped.events) == plausible.sum()


def test_beauty() -> None:
    found = guess(data("amazon_beauty_5core/sequences.parquet"), "sequences.parquet")
    schema = found.schema
    assert (schema.user, schema.item, schema.time.column, schema.time.format) == (
        "user",
        "item",
        "position",
        "position",
    )
    assert (schema.event.constant, schema.fields, schema.value) == ("interaction", {}, None)


def test_cdnow() -> None:
    log = data("cdnow/cdnow_master.parquet")
    schema = guess(log, "cdnow_master.parquet").schema
    assert (schema.user, schema.time.column, schema.time.format) == ("customer_id", "date", "auto")
    assert (schema.event.constant, schema.item, schema.value) == ("purchase", None, "dollars")
    assert schema.fields == {"cds": FieldSpec(column="cds", kind="number")}
    mapped = map_rows(log, schema, 1)
    assert mapped.events["user"][0] == "00001"
    assert mapped.events["user"].n_unique() == 23_570  # published


def test_assistments() -> None:
    for part in ("train", "test"):
        schema = guess(data(f"assistments_2009/{part}.parquet"), f"{part}.parquet").schema
        assert (schema.preset, schema.user, schema.item, schema.time.format) == (
            "education",
            "student",
            "skill",
            "position",
        )
        assert schema.event.constant == "answer"
        assert schema.fields == {"correct": FieldSpec(column="correct", kind="category")}


def test_open_bandit() -> None:
    for policy in ("random", "bts"):
        log = data(f"open_bandit_men/{policy}.parquet")
        found = guess(log, f"{policy}.parquet")
        schema = found.schema
        assert schema.user is None
        assert "user" in unclear(found)
        assert (schema.item, schema.time.column, schema.time.format) == ("item_id", "timestamp", "iso")
        assert "their own" in said(found, "time.zone")
        assert schema.tie_break == "position"
        assert schema.fields["propensity_score"].kind == "number"
        assert schema.fields["user_feature_0"].kind == "category"
        mapped = map_rows(log, schema, 1)
        assert mapped.rejected.is_empty()
        assert (mapped.events["event"] == "click").sum() == log["click"].sum()
        assert mapped.events["user"].n_unique() == len(log)


def test_reviews_without_user_and_time() -> None:
    found = guess(data("deceptive_opinion_spam/reviews.parquet"), "reviews.parquet")
    assert {"user", "time.column"} <= unclear(found)
    assert (found.schema.user, found.schema.time.column, found.schema.item) == (None, None, "hotel")
    assert found.schema.fields["ori_review"].kind == "text"
    assert "a column without a name" in said(found, "fields")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("amazon_beauty_5core/item_attributes.parquet", "table of items"),
        ("open_bandit_men/item_context.parquet", "table of items"),
        ("cdnow/sample_ids.parquet", "list of users"),
    ],
)
def test_a_table_that_is_no_log_is_an_error(name: str, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        guess(data(name), name)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (pl.DataFrame({"item": ["a", "b"], "attributes": [[1], [2]]}), "table of items"),
        (pl.DataFrame({"customer_id": ["a", "b"]}), "list of users"),
        (
            pl.DataFrame({"id": [1, 2], "name": ["a", "b"], "description": ["a thing of many words " * 9] * 2}),
            "table of items",
        ),
        (pl.DataFrame({"1": [1], "2268318": [2], "pv": ["pv"], "1511544070": [1511561733]}), "no header"),
        (pl.DataFrame({"user_id": [], "ts": []}), "no rows"),
        (pl.DataFrame({"user;time;item": ["a;b;c"]}), "delimiter"),
        (pl.DataFrame(), "no rows"),
    ],
)
def test_what_cannot_be_a_log(frame: pl.DataFrame, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        guess(frame, "x.csv")


@pytest.mark.parametrize(
    "columns",
    [
        ["UserID", "ItemID", "EventType", "Timestamp"],
        ["user id", "item id", "event type", "time stamp"],
        ["USER-ID", "ITEM-ID", "EVENT-TYPE", "TIMESTAMP"],
        ["visitorid", "itemid", "event", "ts"],
        ["Customer ID", "StockCode", "behavior", "createdAt"],
        ["client", "sku", "action", "event_time"],
        ["用户ID", "商品ID", "行为", "时间"],
        ["用户", "商品", "行为类型", "时间戳"],
        ["用户ＩＤ", "商品编号", "操作", "发生时间"],
        ["usuario", "producto", "evento", "fecha"],
        ["Kundennummer", "Artikel", "Ereignis", "Zeitstempel"],
        ["ユーザーID", "商品ID", "行動", "日時"],
        ["buyer_user_id", "ad_item_id", "action_type", "server_timestamp"],
    ],
)
def test_names_in_other_spellings_and_languages(columns: list[str]) -> None:
    frame = shop().select("user_id", "item_id", "event_type", "timestamp")
    schema = guess(frame.rename(dict(zip(frame.columns, columns, strict=True))), "log.csv").schema
    assert [schema.user, schema.item, schema.event.column, schema.time.column] == columns


def test_chinese_event_types() -> None:
    words = ["浏览", "收藏", "加购", "购买", "退货"]
    frame = shop().with_columns(event_type=pl.Series([words[k % 5] for k in range(200)]))
    found = guess(frame, "log.csv")
    assert list(found.schema.types) == words
    assert [bool(r) and r[0] == "negative" for r in roles(found).values()] == [False, False, False, False, True]


def test_roles_of_logins_and_of_unknown_words() -> None:
    words = ["login", "buy", "zap", "refund", "view"]
    frame = shop().with_columns(event_type=pl.Series([words[k % 5] for k in range(200)]))
    found = guess(frame, "log.csv")
    assert roles(found) == {"login": [], "view": WANTED, "buy": WANTED, "refund": ["negative"], "zap": []}
    assert "types.zap" in unclear(found)
    nothing_known = guess(frame.with_columns(event_type=pl.Series(["1", "2"] * 100)), "log.csv")
    assert roles(nothing_known) == {"1": WANTED, "2": WANTED}  # without a target nothing could be learnt
    assert {"types", "event.column"} <= unclear(nothing_known)


def times(texts: list[str]) -> Guess:
    return guess(pl.DataFrame({"user": ["u", "v"] * (len(texts) // 2), "date": texts, "item": texts}), "log.csv")


def test_day_first_and_month_first() -> None:
    days = [date(2011, 1, 1) + timedelta(days=3 * k) for k in range(60)]
    for pattern in ("%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d.%m.%y", "%m-%d-%Y"):
        found = times([day.strftime(pattern) for day in days])
        assert found.schema.time.format == pattern
        assert "time.format" not in unclear(found)
    # No day above the twelfth: both fit, and only the order of the rows speaks for one of them.
    low = [date(2011, month, day) for month in range(1, 13) for day in range(1, 13)]
    for pattern, other in (("%d/%m/%Y", "%m/%d/%Y"), ("%m/%d/%Y", "%d/%m/%Y")):
        found = times([day.strftime(pattern) for day in low])
        assert found.schema.time.format == pattern
        assert "time.format" in unclear(found)
        assert other in said(found, "time.format")


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("%Y-%m-%d", "iso"),
        ("%Y-%m-%dT%H:%M:%SZ", "iso"),
        ("%Y-%m-%d %H:%M:%S.%f", "iso"),
        ("%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M:%S"),
        ("%Y%m%d", "%Y%m%d"),
        ("%Y%m%d%H%M%S", "%Y%m%d%H%M%S"),
        ("%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M %p"),
        ("%d %b %Y", "%d %b %Y"),
        ("%Y年%m月%d日", "%Y年%m月%d日"),
    ],
)
def test_formats_of_time(pattern: str, wanted: str) -> None:
    moments = [datetime(2011, 3, 1, 7, 5, 9, 250) + timedelta(hours=31 * k) for k in range(40)]
    texts = [moment.strftime(pattern) for moment in moments]
    found = times(texts)
    assert found.schema.time.format == wanted
    frame = pl.DataFrame({"user": ["u"] * 40, "date": texts, "item": texts})
    parsed = map_rows(frame, found.schema, 1).events["time"].to_list()
    assert parsed == [datetime.strptime(text, pattern).replace(tzinfo=UTC) for text in texts]


def test_units_of_an_epoch_by_their_size() -> None:
    for factor, wanted in ((1, "epoch_s"), (1_000, "epoch_ms"), (1_000_000, "epoch_us")):
        for dtype in (pl.Int64, pl.String):
            frame = shop().with_columns((pl.col("timestamp").cast(pl.Int64) * factor).cast(dtype))
            found = guess(frame, "log")
            assert found.schema.time.format == wanted
            assert "2023-11-1" in said(found, "time.format")


def test_mixed_and_broken_times_are_named() -> None:
    stamps = ["2024-01-01 10:00"] * 60 + ["01/02/2024"] * 40
    found = times(stamps)
    assert found.schema.time.format == "iso"
    assert "40 of the sample's 100 rows" in said(found, "time.format")
    assert "time.format" in unclear(found)


def test_a_second_column_for_the_user_or_the_time_is_named() -> None:
    frame = shop().with_columns(customer_id=pl.col("item_id"), created_at=pl.col("timestamp"))
    found = guess(frame, "log.csv")
    assert (found.schema.user, found.schema.time.column) == ("user_id", "timestamp")
    assert {"user", "time.column"} <= unclear(found)
    assert "customer_id" in said(found, "user")
    assert "created_at" in said(found, "time.column")
    session = guess(shop().rename({"user_id": "session_id"}), "log.csv")
    assert session.schema.user == "session_id"
    assert "user" in unclear(session)


def test_a_date_beside_an_hour_is_named() -> None:
    frame = pl.DataFrame(
        {"user": ["a", "b"], "date": ["2024-01-05"] * 2, "time": ["10:05", "9:30:01"], "item": ["x", "y"]}
    )
    found = guess(frame, "log.csv")
    assert (found.schema.time.column, found.schema.fields) == ("date", {})
    assert "hour alone" in said(found, "time.column")


def test_what_other_logs_are_called() -> None:
    rocket = csv(
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n1433224214164,992329,addtocart,248676,"
    )
    schema = guess(rocket, "events.csv").schema
    assert (schema.user, schema.item, schema.time.format, list(schema.types)) == (
        "visitorid",
        "itemid",
        "epoch_ms",
        ["view", "addtocart"],
    )
    cosmetics = csv(
        "event_time,event_type,product_id,price,user_id\n2019-10-01 00:00:00 UTC,remove_from_cart,5,2.5,1\n"
        "2019-10-01 00:00:03 UTC,view,6,3,1"
    )
    found = guess(cosmetics, "2019-Oct.csv")
    assert (found.schema.value, found.schema.time.format) == ("price", "iso")
    assert roles(found) == {"view": WANTED, "remove_from_cart": ["negative"]}
    assert "their own" in said(found, "time.zone")
    bank = csv(
        "step,type,amount,nameOrig,nameDest\n1,PAYMENT,9839.64,C1231006815,M1979787155\n1,CASH_OUT,181.0,C1305486145,C553264065"
    )
    schema = guess(bank, "paysim.csv").schema
    assert (schema.preset, schema.user, schema.item, schema.value) == ("finance", "nameOrig", "nameDest", "amount")


def test_empty_constant_and_numbering_columns_are_left_out() -> None:
    frame = shop().with_columns(
        pl.int_range(200).cast(pl.String).alias(""),
        pl.int_range(200).alias("Unnamed: 0"),
        currency=pl.lit("EUR"),
        note=pl.lit(None, pl.String),
        tags=pl.Series([[1]] * 200),
        trace=pl.Series([f"{k:x}-{k}" for k in range(200)]),
        updated=pl.Series([datetime(2024, 1, 1)] * 199 + [datetime(2024, 1, 2)]),
    )
    found = guess(frame, "log.csv")
    assert list(found.schema.fields) == ["category"]
    for name in ("Unnamed: 0", "without a name", "currency", "note", "tags", "trace", "updated"):
        assert name in " ".join(note.text for note in found.notes if note.key in ("fields", "time.column")), name


def test_kinds_of_fields() -> None:
    frame = shop().with_columns(
        rank=pl.Series([str(k % 3) for k in range(200)]),
        zip=pl.Series([f"{k % 90:05d}" for k in range(200)]),
        weight=pl.Series([f"{k / 7:.3f}" for k in range(200)]),
        dwell_time=pl.Series([str(k % 100) for k in range(200)]),
        title=pl.Series([f"a very nice thing of number {k % 23}" for k in range(200)]),
        picture=pl.Series([f"http://x.org/{k % 23}.jpg?s=1" for k in range(200)]),
        member=pl.Series([k % 3 == 0 for k in range(200)]),
    )
    fields = guess(frame.rename({"member": "is member!"}), "log.csv").schema.fields
    kinds = {name: (spec.kind, spec.of) for name, spec in fields.items()}
    assert kinds == {
        "category": ("category", "item"),
        "rank": ("category", "event"),
        "zip": ("category", "event"),
        "weight": ("number", "event"),
        "dwell_time": ("duration", "event"),
        "title": ("category", "item"),  # 23 different ones are names, not texts
        "picture": ("image", "item"),
        "is_member": ("category", "event"),
    }
    assert fields["is_member"].column == "is member!"


def test_values() -> None:
    frame = shop().with_columns(quantity=pl.Series(["2"] * 100 + ["3"] * 100))
    assert guess(frame, "x").schema.value == "quantity * price"
    renamed = frame.rename({"quantity": "Qty", "price": "Unit Price"})
    schema = guess(renamed, "x").schema
    assert schema.value == "Qty * `Unit Price`"
    assert map_rows(renamed, schema, 1).events["value"][0] == 10.0
    assert guess(frame.with_columns(total=pl.col("price")), "x").schema.value == "total"
    assert guess(shop().with_columns(price=pl.lit("cheap")), "x").schema.value is None


def test_ratings() -> None:
    frame = pl.DataFrame(
        {"userId": [1, 1, 2], "movieId": [5, 6, 5], "rating": [4.0, 3.5, 5.0], "timestamp": [964982703] * 3}
    )
    found = guess(frame, "ratings.csv")
    assert (found.schema.item, found.schema.value, found.schema.event.constant) == ("movieId", "rating", "rating")
    assert roles(found) == {"rating": ["target", "positive", "explicit"]}


def test_an_event_id_is_one_only_when_it_never_repeats() -> None:
    frame = shop().with_columns(event_id=pl.Series([f"e{k}" for k in range(200)]))
    assert guess(frame, "x").schema.event_id == "event_id"
    again = frame.with_columns(event_id=pl.Series([f"e{k // 2}" for k in range(200)]))
    assert guess(again, "x").schema.event_id is None


def test_presets() -> None:
    bank = csv(
        "account_id,merchant,amount,transaction_type,date\nA1,M1,5.5,PAYMENT,2024-01-01\nA1,M2,7,TRANSFER,2024-01-02\n"
    )
    found = guess(bank, "bank.csv").schema
    assert (found.preset, found.user, found.item, found.value) == ("finance", "account_id", "merchant", "amount")
    clinic = csv("patient_id,charttime,diagnosis\n1,2024-01-01 08:00,I10\n1,2024-02-01 09:00,E11\n")
    found = guess(clinic, "clinic.csv").schema
    assert (found.preset, found.user, found.item, found.event.constant) == (
        "health",
        "patient_id",
        "diagnosis",
        "visit",
    )
    assert guess(clinic, "clinic.csv", "retail").schema.preset == "retail"
    with pytest.raises(SchemaError, match="retail, finance, health, education"):
        guess(clinic, "clinic.csv", "shop")


def test_stars_are_a_number_and_other_few_whole_numbers_a_category() -> None:
    frame = shop().with_columns(**{name: pl.Series([str(k % 5) for k in range(200)]) for name in ("stars", "grade")})
    fields = guess(frame, "log.csv").schema.fields
    assert (fields["stars"].kind, fields["grade"].kind) == ("number", "category")


def test_what_may_be_the_item_and_the_type_under_odd_names_is_marked() -> None:
    frame = shop().select(
        who="user_id", what=pl.concat_str(pl.lit("thing-"), "item_id"), did="event_type", timestamp="timestamp"
    )
    found = guess(frame, "log.csv")
    assert {"item", "event.constant"} <= unclear(found)
    assert "what" in said(found, "item")
    assert "event: {column: did}" in said(found, "event.constant")
