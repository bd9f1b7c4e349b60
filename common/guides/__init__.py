"""Guides: what is known about each issue of training, read from ``diagnostics/*.md``, and applied to configs.

The knowledge stands in the guides; this package reads and checks it, and changes configs as it says.
"""

from common.guides.applying import AppliedChange, apply_changes, rank
from common.guides.changes import Change
from common.guides.reading import GuideInvalidError, load_all_guides, load_guide
from common.guides.sections import Guide, Recommendation

__all__ = [
    "AppliedChange",
    "Change",
    "Guide",
    "GuideInvalidError",
    "Recommendation",
    "apply_changes",
    "load_all_guides",
    "load_guide",
    "rank",
]
