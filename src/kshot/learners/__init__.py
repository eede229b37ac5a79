"""Learners, one file per algorithm; ``learners`` maps the names that the command line knows to the classes.

A new learner is one file and one row below: importing the class registers it, and offers it as `kshot.NAME`.
"""

from kshot.learners.anil import ANIL as ANIL
from kshot.learners.base import FeatureLearner as FeatureLearner
from kshot.learners.base import Learner as Learner
from kshot.learners.base import learners as learners
from kshot.learners.feat import FEAT as FEAT
from kshot.learners.hsml import HSML as HSML
from kshot.learners.imaml import IMAML as IMAML
from kshot.learners.initialization import InitializationLearner as InitializationLearner
from kshot.learners.maml import MAML as MAML
from kshot.learners.matching_net import MatchingNet as MatchingNet
from kshot.learners.meta_lstm import MetaLSTM as MetaLSTM
from kshot.learners.metaoptnet import MetaOptNet as MetaOptNet
from kshot.learners.minibatch_prox import MinibatchProx as MinibatchProx
from kshot.learners.mmaml import MMAML as MMAML
from kshot.learners.multi_task import MultiTask as MultiTask
from kshot.learners.protonet import ProtoNet as ProtoNet
from kshot.learners.r2d2 import R2D2 as R2D2
from kshot.learners.relation_net import RelationNet as RelationNet
from kshot.learners.reptile import Reptile as Reptile
from kshot.learners.simpleshot import SimpleShot as SimpleShot
from kshot.learners.supervised import Supervised as Supervised
from kshot.learners.tadam import TADAM as TADAM
from kshot.learners.tsa_maml import TSAMAML as TSAMAML
from kshot.learners.unicorn_maml import UnicornMAML as UnicornMAML

# every class above; not assigned by name, since type checkers, which read the rows, would take it for an empty list
globals()["__all__"] = sorted(name for name, value in globals().items() if isinstance(value, type))
