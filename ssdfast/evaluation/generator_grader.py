"""The grader of the problems of reasoning-gym, in the form of a user's grader.

reasoning-gym is imported with this module, so that its import counts for no answer.
"""

import reasoning_gym  # noqa: F401

from ..problems.reasoning_gym import score

__all__ = ["score"]
