"""The one file that `feast apply` imports: Feast compares objects by identity, so each is defined once, elsewhere."""

from feature_repo.entities import card, item, terminal, user
from feature_repo.services import fraud, recommendation, retention
from feature_repo.views import (
    card_activity_v1,
    card_recent_v1,
    item_activity_v1,
    payment_context_v1,
    terminal_risk_v1,
    user_activity_v1,
    user_profile_v1,
    user_recent_v1,
    user_session_v1,
)

__all__ = [
    "card",
    "card_activity_v1",
    "card_recent_v1",
    "fraud",
    "item",
    "item_activity_v1",
    "payment_context_v1",
    "recommendation",
    "retention",
    "terminal",
    "terminal_risk_v1",
    "user",
    "user_activity_v1",
    "user_profile_v1",
    "user_recent_v1",
    "user_session_v1",
]
