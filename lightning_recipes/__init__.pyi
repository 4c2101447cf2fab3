"""What `lightning_recipes` offers and where each name stands: its only list, which the package reads when a name is asked for."""

from plugins.adversarial.fgsm import FGSM as FGSM
from plugins.adversarial.fgsm_rs import FGSMRandomStart as FGSMRandomStart
from plugins.adversarial.free import FreeAdversarial as FreeAdversarial
from plugins.adversarial.n_fgsm import NFGSM as NFGSM
from plugins.adversarial.pgd import PGD as PGD
from plugins.adversarial.trades import TRADES as TRADES
from plugins.augmentation.augmix import AugMix as AugMix
from plugins.augmentation.autoaugment import AutoAugment as AutoAugment
from plugins.augmentation.blur import GaussianBlur as GaussianBlur
from plugins.augmentation.color_jitter import ColorJitter as ColorJitter
from plugins.augmentation.crop import RandomCrop as RandomCrop
from plugins.augmentation.cutmix import CutMix as CutMix
from plugins.augmentation.cutout import Cutout as Cutout
from plugins.augmentation.feature_noise import FeatureNoise as FeatureNoise
from plugins.augmentation.grayscale import Grayscale as Grayscale
from plugins.augmentation.horizontal_flip import HorizontalFlip as HorizontalFlip
from plugins.augmentation.mixup import Mixup as Mixup
from plugins.augmentation.randaugment import RandAugment as RandAugment
from plugins.augmentation.solarize import Solarize as Solarize
from plugins.augmentation.spec_augment import SpecAugment as SpecAugment
from plugins.augmentation.speed import SpeedPerturbation as SpeedPerturbation
from plugins.augmentation.swap_noise import SwapNoise as SwapNoise
from plugins.augmentation.three_augment import ThreeAugment as ThreeAugment
from plugins.augmentation.time_shift import TimeShift as TimeShift
from plugins.augmentation.trivial_augment import TrivialAugment as TrivialAugment
from plugins.augmentation.alternating_flip import AlternatingFlip as AlternatingFlip
from plugins.augmentation.elastic import Elastic as Elastic
from plugins.augmentation.gaussian_noise import GaussianNoise as GaussianNoise
from plugins.augmentation.random_erasing import RandomErasing as RandomErasing
from plugins.augmentation.resized_crop import ResizedCrop as ResizedCrop
from plugins.augmentation.resizemix import ResizeMix as ResizeMix
from plugins.augmentation.rotate import Rotate as Rotate
from plugins.augmentation.translate import Translate as Translate
from plugins.augmentation.vertical_flip import VerticalFlip as VerticalFlip
from plugins.augmentation.zoom import Zoom as Zoom
from plugins.averaging.ema import EMA as EMA
from plugins.averaging.swa import SWA as SWA
from plugins.base import (
    Batch as Batch,
    Diverged as Diverged,
    Option as Option,
    OptimizerWrapper as OptimizerWrapper,
    Panel as Panel,
    Phase as Phase,
    Plugin as Plugin,
    RecipeError as RecipeError,
    Refusal as Refusal,
    Selection as Selection,
    Setting as Setting,
    Stage as Stage,
    Task as Task,
    class_probabilities as class_probabilities,
    closure_of as closure_of,
    derive_seed as derive_seed,
    expect as expect,
    expect_choice as expect_choice,
    expect_count as expect_count,
    expect_nonnegative as expect_nonnegative,
    expect_positive as expect_positive,
    expect_probability as expect_probability,
    needs_closure as needs_closure,
)
from plugins.clipping.adaptive import ClipAdaptively as ClipAdaptively
from plugins.clipping.norm import ClipNorm as ClipNorm
from plugins.clipping.value import ClipValue as ClipValue
from plugins.diagnostics.activation_stats import ActivationStats as ActivationStats
from plugins.diagnostics.calibration import Calibration as Calibration
from plugins.diagnostics.curvature import Curvature as Curvature
from plugins.curriculum.layer_freezing import LayerFreezing as LayerFreezing
from plugins.curriculum.progressive_resizing import ProgressiveResizing as ProgressiveResizing
from plugins.curriculum.repeated_augmentation import RepeatedAugmentation as RepeatedAugmentation
from plugins.curriculum.selective_backprop import SelectiveBackprop as SelectiveBackprop
from plugins.curriculum.self_paced import SelfPaced as SelfPaced
from plugins.diagnostics.generalization_gap import GeneralizationGap as GeneralizationGap
from plugins.diagnostics.gradient_noise import GradientStandardError as GradientStandardError
from plugins.diagnostics.gradient_stats import GradientStats as GradientStats
from plugins.diagnostics.lr import LearningRates as LearningRates
from plugins.diagnostics.sparsity import Sparsity as Sparsity
from plugins.diagnostics.throughput import Throughput as Throughput
from plugins.diagnostics.weight_norm import WeightNorm as WeightNorm
from plugins.distillation.features import FeatureDistillation as FeatureDistillation
from plugins.distillation.logits import LogitDistillation as LogitDistillation
from plugins.distillation.self import BornAgain as BornAgain
from plugins.finetuning.freeze import Freeze as Freeze
from plugins.finetuning.gradual import GradualUnfreezing as GradualUnfreezing
from plugins.finetuning.linear_probe import LinearProbe as LinearProbe
from plugins.guard.divergence import Divergence as Divergence
from plugins.guard.nan_rollback import NaNRollback as NaNRollback
from plugins.guard.precise_norm import PreciseNorm as PreciseNorm
from plugins.inference.ensemble import Ensemble as Ensemble
from plugins.inference.mc_dropout import MCDropout as MCDropout
from plugins.inference.soup import Soup as Soup
from plugins.inference.temperature import Temperature as Temperature
from plugins.inference.tta import TestTimeAugmentation as TestTimeAugmentation
from plugins.init.constant import ConstantInit as ConstantInit
from plugins.init.dirac import DiracInit as DiracInit
from plugins.init.framework import FrameworkInit as FrameworkInit
from plugins.init.from_run import FromRunInit as FromRunInit
from plugins.init.kaiming_normal import KaimingNormalInit as KaimingNormalInit
from plugins.init.kaiming_uniform import KaimingUniformInit as KaimingUniformInit
from plugins.init.lecun_normal import LecunNormalInit as LecunNormalInit
from plugins.init.lsuv import LSUVInit as LSUVInit
from plugins.init.normal import NormalInit as NormalInit
from plugins.init.orthogonal import OrthogonalInit as OrthogonalInit
from plugins.init.uniform import UniformInit as UniformInit
from plugins.init.xavier_normal import XavierNormalInit as XavierNormalInit
from plugins.init.xavier_uniform import XavierUniformInit as XavierUniformInit
from plugins.init.zeros import ZerosInit as ZerosInit
from plugins.loss.bce import BinaryCrossEntropy as BinaryCrossEntropy
from plugins.loss.by_task import LossByTask as LossByTask
from plugins.loss.cross_entropy import CrossEntropy as CrossEntropy
from plugins.loss.focal import FocalLoss as FocalLoss
from plugins.loss.hinge import Hinge as Hinge
from plugins.loss.huber import Huber as Huber
from plugins.loss.mae import MAE as MAE
from plugins.loss.mse import MSE as MSE
from plugins.loss.poly1 import Poly1 as Poly1
from plugins.loss.quantile import QuantileLoss as QuantileLoss
from plugins.metric.auroc import AUROC as AUROC
from plugins.metric.average_precision import AveragePrecision as AveragePrecision
from plugins.metric.balanced_accuracy import BalancedAccuracy as BalancedAccuracy
from plugins.metric.calibration_error import CalibrationError as CalibrationError
from plugins.metric.cohen_kappa import CohenKappa as CohenKappa
from plugins.metric.f1 import F1Score as F1Score
from plugins.metric.mae import MeanAbsoluteError as MeanAbsoluteError
from plugins.metric.precision import Precision as Precision
from plugins.metric.r2 import R2 as R2
from plugins.metric.recall import Recall as Recall
from plugins.metric.rmse import RootMeanSquaredError as RootMeanSquaredError
from plugins.metric.top_k_accuracy import TopKAccuracy as TopKAccuracy
from plugins.multitask.cagrad import CAGrad as CAGrad
from plugins.multitask.dwa import DynamicWeightAverage as DynamicWeightAverage
from plugins.multitask.equal import EqualWeights as EqualWeights
from plugins.multitask.fixed import FixedWeights as FixedWeights
from plugins.multitask.gradnorm import GradNorm as GradNorm
from plugins.multitask.mgda import MGDA as MGDA
from plugins.multitask.nash import NashMTL as NashMTL
from plugins.multitask.pcgrad import PCGrad as PCGrad
from plugins.multitask.uncertainty import UncertaintyWeights as UncertaintyWeights
from plugins.multitask.upgrad import UPGrad as UPGrad
from plugins.normalization.batch import BatchNormalization as BatchNormalization
from plugins.normalization.ghost_batch import GhostBatchNormalization as GhostBatchNormalization
from plugins.normalization.group import GroupNormalization as GroupNormalization
from plugins.normalization.instance import InstanceNormalization as InstanceNormalization
from plugins.normalization.layer import LayerNormalization as LayerNormalization
from plugins.normalization.model import ModelNormalization as ModelNormalization
from plugins.normalization.none import NoNormalization as NoNormalization
from plugins.normalization.rms import RMSNormalization as RMSNormalization
from plugins.normalization.weight_standardization import WeightStandardization as WeightStandardization
from plugins.parameters import named_parameters as named_parameters, weights_of as weights_of
from plugins.optimizer.adafactor import Adafactor as Adafactor
from plugins.optimizer.adan import Adan as Adan
from plugins.optimizer.lamb import Lamb as Lamb
from plugins.optimizer.lars import Lars as Lars
from plugins.optimizer.lion import Lion as Lion
from plugins.optimizer.muon import Muon as Muon
from plugins.optimizer.pytorch_optimizer import PytorchOptimizer as PytorchOptimizer
from plugins.optimizer.schedule_free import ScheduleFreeAdamW as ScheduleFreeAdamW
from plugins.optimizer.soap import SOAP as SOAP
from plugins.optimizer.timm import TimmOptimizer as TimmOptimizer
from plugins.preprocessing.center import CenterInputs as CenterInputs
from plugins.preprocessing.minmax import MinMaxInputs as MinMaxInputs
from plugins.preprocessing.none import NoPreprocessing as NoPreprocessing
from plugins.preprocessing.pretrained import PretrainedInputs as PretrainedInputs
from plugins.preprocessing.standardize import StandardizeInputs as StandardizeInputs
from plugins.preprocessing.whiten import WhitenInputs as WhitenInputs
from plugins.preprocessing.width import WidthInputs as WidthInputs
from plugins.regularizer.activation_l1 import ActivationL1 as ActivationL1
from plugins.regularizer.class_weights import ClassWeights as ClassWeights
from plugins.regularizer.confidence_penalty import ConfidencePenalty as ConfidencePenalty
from plugins.regularizer.dropblock import DropBlock as DropBlock
from plugins.regularizer.dropcluster import DropCluster as DropCluster
from plugins.regularizer.dropout import Dropout as Dropout
from plugins.regularizer.elastic_net import ElasticNet as ElasticNet
from plugins.regularizer.input_dropout import InputDropout as InputDropout
from plugins.regularizer.jacobian import JacobianPenalty as JacobianPenalty
from plugins.regularizer.l1 import L1Penalty as L1Penalty
from plugins.regularizer.l2 import L2Penalty as L2Penalty
from plugins.regularizer.label_smoothing import LabelSmoothing as LabelSmoothing
from plugins.regularizer.norm_ball import NormBall as NormBall
from plugins.regularizer.patch_dropout import PatchDropout as PatchDropout
from plugins.regularizer.r_drop import RDrop as RDrop
from plugins.regularizer.spatial_dropout import SpatialDropout as SpatialDropout
from plugins.regularizer.spectral_norm import SpectralNorm as SpectralNorm
from plugins.regularizer.stochastic_depth import StochasticDepth as StochasticDepth
from plugins.regularizer.weight_noise import WeightNoise as WeightNoise
from plugins.sampling.balanced import BalancedSampling as BalancedSampling
from plugins.sampling.importance import ImportanceSampling as ImportanceSampling
from plugins.sampling.weighted import WeightedSampling as WeightedSampling
from plugins.scheduler.constant import ConstantRate as ConstantRate
from plugins.scheduler.cosine import CosineDecay as CosineDecay
from plugins.scheduler.cosine_restarts import CosineRestarts as CosineRestarts
from plugins.scheduler.exponential import ExponentialDecay as ExponentialDecay
from plugins.scheduler.inverse_sqrt import InverseSqrt as InverseSqrt
from plugins.scheduler.linear import LinearDecay as LinearDecay
from plugins.scheduler.one_cycle import OneCycle as OneCycle
from plugins.scheduler.plateau import Plateau as Plateau
from plugins.scheduler.polynomial import PolynomialDecay as PolynomialDecay
from plugins.scheduler.step import StepDecay as StepDecay
from plugins.scheduler.warmup_cosine import WarmupCosine as WarmupCosine
from plugins.scheduler.wsd import WSD as WSD
from plugins.sites import attach as attach, find_sites as find_sites, weight_layers as weight_layers
from plugins.stopping.early import EarlyStopping as EarlyStopping
from plugins.stopping.early_continue import EarlyContinue as EarlyContinue
from plugins.stopping.early_retrain import EarlyRetrain as EarlyRetrain
from plugins.stopping.milestones import Milestones as Milestones
from plugins.wrapper.asam import ASAM as ASAM
from plugins.wrapper.awp import AWP as AWP
from plugins.wrapper.cautious import CautiousUpdates as CautiousUpdates
from plugins.wrapper.gradient_centralization import GradientCentralization as GradientCentralization
from plugins.wrapper.gradient_noise import GradientNoise as GradientNoise
from plugins.wrapper.gsam import GSAM as GSAM
from plugins.wrapper.lookahead import Lookahead as Lookahead
from plugins.wrapper.looksam import LookSAM as LookSAM
from plugins.wrapper.sam import SAM as SAM
from recipes.data.audio_folder import AudioFolder as AudioFolder
from recipes.data.base import Data as Data
from recipes.data.csv import CsvData as CsvData
from recipes.data.digits import Digits as Digits
from recipes.data.huggingface import HuggingFaceData as HuggingFaceData
from recipes.data.image_folder import ImageFolder as ImageFolder
from recipes.data.loaders import EvaluationLoader as EvaluationLoader, StepLoader as StepLoader
from recipes.data.npz import NpzData as NpzData
from recipes.data.points import PointClouds as PointClouds
from recipes.data.source import Source as Source
from recipes.data.speech_digits import SpeechDigits as SpeechDigits
from recipes.data.split import Split as Split
from recipes.data.torchvision import TorchvisionImages as TorchvisionImages
from recipes.data.toy import Toy as Toy
from recipes.engine.logger import RunLogger as RunLogger
from recipes.engine.module import RecipeModule as RecipeModule
from recipes.models.cnn import CNN as CNN
from recipes.models.dgcnn import DGCNN as DGCNN
from recipes.models.fcn import FCN as FCN
from recipes.models.linear import LinearModel as LinearModel
from recipes.models.mlp import MLP as MLP
from recipes.models.pointnet import PointNet as PointNet
from recipes.models.polynomial import PolynomialModel as PolynomialModel
from recipes.models.resnet18 import ResNet18 as ResNet18
from recipes.models.resnet34 import ResNet34 as ResNet34
from recipes.models.resnet50 import ResNet50 as ResNet50
from recipes.models.rnn import RecurrentModel as RecurrentModel
from recipes.models.timm import TimmModel as TimmModel
from recipes.models.torchvision import TorchvisionModel as TorchvisionModel
from recipes.models.transformer import TransformerModel as TransformerModel
from recipes.models.wide_resnet import WideResNet as WideResNet
from recipes.run.build import load_run as load_run
from recipes.run.loggers.csv_files import CsvRunLogger as CsvRunLogger
from recipes.run.loggers.tensorboard import TensorBoardRunLogger as TensorBoardRunLogger
from recipes.run.loggers.wandb import WandbRunLogger as WandbRunLogger
from recipes.run.predictor import Prediction as Prediction, Predictor as Predictor, load as load
