"""Which features a task reads: one feature service a task."""

from feast import FeatureService

from feature_repo.views import (
    card_activity_v1,
    card_recent_v1,
    terminal_risk_v1,
    user_activity_v1,
    user_profile_v1,
    user_recent_v1,
    user_session_v1,
)

recommendation = FeatureService(
    name="recommendation",
    features=[user_recent_v1, user_activity_v1],
    owner="growth@example.com",
    description="which item the user looks at next",
)

retention = FeatureService(
    name="retention",
    features=[user_recent_v1, user_activity_v1, user_profile_v1],
    owner="growth@example.com",
    description="whether the user comes back within two weeks",
)

fraud = FeatureService(
    name="fraud",
    features=[card_recent_v1, card_activity_v1, terminal_risk_v1, user_session_v1, user_recent_v1],
    owner="risk@example.com",
    description="whether a payment will be charged back",
)
