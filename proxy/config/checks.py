"""What a configuration says across its sections: names that lead nowhere, wrong orders, open doors."""

from __future__ import annotations

from proxy.config.document import Document
from proxy.config.expand import Expander
from proxy.config.model import Config


def check(config: Config, document: Document, expander: Expander, mode: int) -> Config:
    return config
