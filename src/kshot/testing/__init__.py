"""Contracts as functions: what every learner, adaptation and backbone has to keep, for classes of your own, too.

>>> kshot.testing.check_learner(MyLearner)
>>> kshot.testing.check_adaptation(MyAdaptation)
>>> kshot.testing.check_backbone(MyBackbone)
"""

from kshot.testing.adaptations import check_adaptation
from kshot.testing.backbones import check_backbone
from kshot.testing.learners import check_learner

__all__ = ["check_adaptation", "check_backbone", "check_learner"]
