"""The event contract: one table of columns and row rules from which everything else is generated.

Arrow schema, GX suites, HTTP schema and documentation are derived from `EVENT_COLUMNS` and
`row_rules()`. Times are UTC in microseconds, money is an integer of minor units (cents), ids are
strings at every door. Grain: one row per event; a label (a chargeback, say) is an event of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

MICROSECONDS = 1_000_000

AHEAD_LIMIT_SECONDS = 300
"""An event dated further ahead of its own arrival than this is refused."""

LABEL = "label"

EVENT_TYPES: tuple[str, ...] = (
    "view",
    "click",
    "search",
    "favorite",
    "cart",
    "checkout",
    "purchase",
    "payment",
    "refund",
    "return",
    "review",
    "support",
    "campaign_sent",
    "campaign_open",
    "login",
    LABEL,
)
"""The event types of a shop. A shop adds its own here, and nowhere else."""

BEHAVIOUR_TYPES: tuple[str, ...] = tuple(name for name in EVENT_TYPES if name != LABEL)
"""What "all event types" means for a feature: labels are knowledge about events, not behaviour."""

ITEM_EVENT_TYPES: tuple[str, ...] = ("view", "click", "favorite", "cart", "purchase", "return", "review")
"""Event types that make no sense without the item they are about."""

ENTITY_KEYS: tuple[str, ...] = (
    "user_id",
    "item_id",
    "card_id",
    "terminal_id",
    "category_id",
    "campaign_id",
    "session_id",
)
"""Columns that may be the join key of an entity, alone or as a pair."""

PersonalData = Literal["none", "pseudonym", "behaviour", "payment"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a contract table.

    `minimum` is inclusive and in the column's own unit. `allowed` lists the values of a closed set.
    """

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = True
    unit: str = ""
    allowed: tuple[str, ...] = ()
    minimum: int | None = None
    personal_data: PersonalData = "none"

    @property
    def field(self) -> pa.Field:
        """The Arrow field of this column."""
        return pa.field(self.name, self.type, nullable=self.nullable)


_TIME = pa.timestamp("us", tz="UTC")

EVENT_COLUMNS: tuple[Column, ...] = (
    Column(name="event_id", type=pa.string(), nullable=False, meaning="names the event; the same id counts once"),
    Column(
        name="user_id",
        type=pa.string(),
        meaning="who did it; only a label may leave it out",
        personal_data="pseudonym",
    ),
    Column(name="item_id", type=pa.string(), meaning="the item it is about", personal_data="behaviour"),
    Column(
        name="event_type",
        type=pa.string(),
        nullable=False,
        allowed=EVENT_TYPES,
        meaning="what was done",
        personal_data="behaviour",
    ),
    Column(
        name="event_timestamp",
        type=_TIME,
        nullable=False,
        unit="UTC, microseconds",
        meaning="when it happened",
        personal_data="behaviour",
    ),
    Column(
        name="ingested_at",
        type=_TIME,
        nullable=False,
        unit="UTC, microseconds",
        meaning="when the serving path could know of it",
    ),
    Column(
        name="source_seq",
        type=pa.int64(),
        nullable=False,
        meaning="order within the source: decides between events of the same microsecond",
    ),
    Column(name="session_id", type=pa.string(), meaning="the visit it belongs to", personal_data="behaviour"),
    Column(name="category_id", type=pa.string(), meaning="category of the item at that time"),
    Column(
        name="price_minor",
        type=pa.int64(),
        unit="minor units of `currency` (cents)",
        minimum=0,
        meaning="price of one item, or amount of a payment",
        personal_data="payment",
    ),
    Column(name="currency", type=pa.string(), unit="ISO 4217", meaning="currency of `price_minor`"),
    Column(name="quantity", type=pa.int64(), unit="items", minimum=1, meaning="how many"),
    Column(name="campaign_id", type=pa.string(), meaning="the campaign that it belongs to"),
    Column(name="device", type=pa.string(), meaning="device it was done on", personal_data="behaviour"),
    Column(name="channel", type=pa.string(), meaning="web, app, store, mail"),
    Column(name="card_id", type=pa.string(), meaning="payment card, a token", personal_data="payment"),
    Column(name="terminal_id", type=pa.string(), meaning="merchant, terminal or delivery address paid at"),
    Column(name="label_of", type=pa.string(), meaning="labels only: the event_id that the label speaks of"),
    Column(name="label", type=pa.string(), meaning="labels only: what is said of it (fraud, returned)"),
    Column(name="label_value", type=pa.int64(), minimum=0, meaning="labels only: 1 it is so, 0 it is not"),
)

ITEM_COLUMNS: tuple[Column, ...] = (
    Column(name="item_id", type=pa.string(), nullable=False, meaning="names the item"),
    Column(name="category_id", type=pa.string(), meaning="its category"),
    Column(name="price_minor", type=pa.int64(), minimum=0, unit="minor units (cents)", meaning="its list price"),
    Column(name="launched_at", type=_TIME, unit="UTC, microseconds", meaning="when it could first be bought"),
    Column(name="title", type=pa.string(), meaning="what people call it"),
    Column(
        name="in_stock",
        type=pa.int64(),
        minimum=0,
        # a flag rather than a count: every change is a version that is kept
        meaning="0 it is sold out, 1 it can be bought; not known where it is left out",
    ),
)

USER_COLUMNS: tuple[Column, ...] = (
    Column(name="user_id", type=pa.string(), nullable=False, meaning="names the user", personal_data="pseudonym"),
    Column(name="signed_up_at", type=_TIME, unit="UTC, microseconds", meaning="when the account was opened"),
    Column(name="country", type=pa.string(), meaning="ISO 3166-1 alpha-2", personal_data="pseudonym"),
)


def arrow_schema(columns: tuple[Column, ...] = EVENT_COLUMNS) -> pa.Schema:
    """The Arrow schema of a contract table."""
    return pa.schema([column.field for column in columns])


@dataclass(frozen=True, kw_only=True)
class RowRule:
    """What every single row must keep.

    `violated` is a SQL predicate (DuckDB dialect) over contract columns that is true for a bad row;
    it is never null. `remedy` tells the producer of the data the way out.
    """

    name: str
    column: str
    violated: str
    reason: str
    remedy: str


def row_rules(columns: tuple[Column, ...] = EVENT_COLUMNS) -> tuple[RowRule, ...]:
    """Row rules of a contract table, derived from its columns; events get the cross-column rules too."""
    rules: list[RowRule] = []
    for column in columns:
        name = column.name
        if not column.nullable:
            rules.append(
                RowRule(
                    name=f"{name}_present",
                    column=name,
                    violated=f"{name} is null" + (f" or {name} = ''" if pa.types.is_string(column.type) else ""),
                    reason=f"{name} is missing or cannot be read as {column.type}",
                    remedy=f"send {name} ({column.meaning}), or map another column to it",
                )
            )
        if column.allowed:
            values = ", ".join(f"'{value}'" for value in column.allowed)
            rules.append(
                RowRule(
                    name=f"{name}_known",
                    column=name,
                    violated=f"{name} is not null and {name} <> '' and {name} not in ({values})",
                    reason=f"{name} is none of the contract's values",
                    remedy=f"map it to one of: {', '.join(column.allowed)}",
                )
            )
        if column.minimum is not None:
            rules.append(
                RowRule(
                    name=f"{name}_minimum",
                    column=name,
                    violated=f"coalesce({name} < {column.minimum}, false)",
                    reason=f"{name} is below {column.minimum}",
                    remedy=f"send {name} in {column.unit or 'whole units'}, at least {column.minimum}",
                )
            )
    if columns is EVENT_COLUMNS:
        rules.extend(_EVENT_RULES)
    return tuple(rules)


_ITEM_TYPES_SQL = ", ".join(f"'{name}'" for name in ITEM_EVENT_TYPES)

_EVENT_RULES: tuple[RowRule, ...] = (
    RowRule(
        name="user_id_present",
        column="user_id",
        violated=f"coalesce(event_type, '') <> '{LABEL}' and coalesce(user_id, '') = ''",
        reason="user_id is missing",
        remedy="send the user, or a stable pseudonym of the visitor",
    ),
    RowRule(
        name="item_id_present",
        column="item_id",
        violated=f"coalesce(event_type in ({_ITEM_TYPES_SQL}), false) and coalesce(item_id, '') = ''",
        reason="an event about an item does not name the item",
        remedy="send item_id with view, click, favorite, cart, purchase, return and review",
    ),
    RowRule(
        name="payment_amount_present",
        column="price_minor",
        violated="coalesce(event_type = 'payment', false) and price_minor is null",
        reason="a payment without a readable amount",
        remedy="send the amount in minor units (cents) as an integer",
    ),
    RowRule(
        name="label_complete",
        column="label_of",
        violated=(
            f"coalesce(event_type = '{LABEL}', false) and "
            "(coalesce(label_of, '') = '' or coalesce(label, '') = '' or coalesce(label_value not in (0, 1), true))"
        ),
        reason="a label must say of which event, what, and whether it is so (0 or 1)",
        remedy="send label_of (an event_id), label and label_value (0 or 1)",
    ),
    RowRule(
        name="ahead_of_arrival",
        column="event_timestamp",
        violated=(
            f"coalesce(epoch_us(event_timestamp) - epoch_us(ingested_at) > {AHEAD_LIMIT_SECONDS * MICROSECONDS}, false)"
        ),
        reason=f"dated more than {AHEAD_LIMIT_SECONDS} s ahead of its own arrival",
        remedy="mend the producer's clock or its time zone, then send the rows again under the same event_id",
    ),
)
