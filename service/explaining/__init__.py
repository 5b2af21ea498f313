"""Why a job waits, is slow, or has ended so: from recorded facts, with what would change it."""

from service.explaining.explaining import Explaining
from service.explaining.values import (
    Action,
    Change,
    Claims,
    Explanation,
    Link,
    Rule,
    Speed,
)

__all__ = ["Action", "Change", "Claims", "Explaining", "Explanation", "Link", "Rule", "Speed"]
