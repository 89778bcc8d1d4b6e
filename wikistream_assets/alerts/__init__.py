"""Who is alerted when something needs a person: one router for every alert of a home.

``kinds`` says what there is to tell, ``router`` decides what is sent when, ``store`` keeps open alerts and the outbox,
``channels`` are the ways out. Does not belong here: what to watch (``defs/ops/alerts.py`` and whoever else fires).
"""

from wikistream_assets.alerts.kinds import Alert
from wikistream_assets.alerts.router import Alerts
from wikistream_assets.quality.rule import Severity
from wikistream_assets.settings import AlertKind

__all__ = ["Alert", "AlertKind", "Alerts", "Severity"]
