"""Learners, one file an algorithm; ``learners`` maps the names that the command line knows to the classes."""

from kshot.learners.anil import ANIL
from kshot.learners.base import FeatureLearner, Learner
from kshot.learners.base import learners as learners
from kshot.learners.hsml import HSML
from kshot.learners.imaml import IMAML
from kshot.learners.initialization import InitializationLearner
from kshot.learners.maml import MAML
from kshot.learners.matching_net import MatchingNet
from kshot.learners.meta_lstm import MetaLSTM
from kshot.learners.metaoptnet import MetaOptNet
from kshot.learners.minibatch_prox import MinibatchProx
from kshot.learners.mmaml import MMAML
from kshot.learners.multi_task import MultiTask
from kshot.learners.protonet import ProtoNet
from kshot.learners.r2d2 import R2D2
from kshot.learners.reptile import Reptile
from kshot.learners.supervised import Supervised
from kshot.learners.tadam import TADAM
from kshot.learners.tsa_maml import TSAMAML

__all__ = [
    "ANIL",
    "HSML",
    "IMAML",
    "MAML",
    "MMAML",
    "R2D2",
    "TADAM",
    "TSAMAML",
    "FeatureLearner",
    "InitializationLearner",
    "Learner",
    "MatchingNet",
    "MetaLSTM",
    "MetaOptNet",
    "MinibatchProx",
    "MultiTask",
    "ProtoNet",
    "Reptile",
    "Supervised",
]
