from kshot import app as app
from kshot import backbones as backbones
from kshot import data as data
from kshot import evaluation as evaluation
from kshot import experiments as experiments
from kshot import learners as learners
from kshot import photos as photos
from kshot import recipes as recipes
from kshot import report as report
from kshot import runs as runs
from kshot import solvers as solvers
from kshot import studies as studies
from kshot import testing as testing
from kshot import theory as theory
from kshot import training as training
from kshot import tsa as tsa
from kshot.backbones import *
from kshot.data import Dataset as Dataset
from kshot.data import Episodes as Episodes
from kshot.data import EpisodeSampler as EpisodeSampler
from kshot.data import Split as Split
from kshot.data import TaskShape as TaskShape
from kshot.data import load as load
from kshot.data import prepare as prepare
from kshot.data import verify as verify
from kshot.errors import KshotError as KshotError
from kshot.evaluation import Evaluation as Evaluation
from kshot.evaluation import compare as compare
from kshot.evaluation import evaluate as evaluate
from kshot.evaluation import extract_features as extract_features
from kshot.evaluation import over_seeds as over_seeds
from kshot.learners import *  # type: ignore[no-redef]  # whose registry does not hide the package
from kshot.learners.create import create_learner as create_learner
from kshot.learners.create import list_backbones as list_backbones
from kshot.learners.create import list_learners as list_learners
from kshot.photos import FewShotClassifier as FewShotClassifier
from kshot.runs import Run as Run
from kshot.runs import TrainingResult as TrainingResult
from kshot.runs import table as table
from kshot.solvers import adaptations as adaptations
from kshot.studies import Study as Study
from kshot.training import TrainingOptions as TrainingOptions
from kshot.training import train as train
from kshot.tsa import Stages as Stages
from kshot.tsa import train_tsa_maml as train_tsa_maml

__version__: str
