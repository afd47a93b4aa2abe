"""Whom features are about. The join keys are columns of the event contract."""

from feast import Entity, ValueType

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="a customer of the shop")
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING, description="an item of the catalogue")
card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING, description="a payment card, tokenised")
terminal = Entity(
    name="terminal",
    join_keys=["terminal_id"],
    value_type=ValueType.STRING,
    description="merchant, terminal or delivery address that is paid at",
)
