"""Cheap signals of a training's health, enough to tell its usual faults apart.

Nothing here draws from a random stream or changes a number of the training. All values are plain: numbers, strings,
booleans, lists, and None for what is not known. Shares are fractions in [0, 1]; names ending in ``_pct`` are percent.

========================================  ============================================================================
In metrics.json                           Made by
========================================  ============================================================================
``epochs[].health.weights``               ``WeightProbe``, the last step of the epoch; see ``WeightSignals``
``epochs[].health.activations``           ``watch_activations``, validating; see ``ActivationSignals``
                                          and ``OutputSignals``
``epochs[].health.samples``               ``SampleHistory``, all training samples; see ``SampleSignals``
``epochs[].health.recall``                ``recall_signals``, the validation split
``epochs[].health.grad_norm_series``      ``series_signals`` of the gradient norms of the epoch's steps
``epochs[].health.loss_series``           ``series_signals`` of the losses of the epoch's steps
``epochs[].health.batch_label_entropy``    ``BatchMixing``, the epoch's first 50 batches: a ratio, 1 for shuffled data
``signals.data``                          ``measure_data``, once before training; see ``DataSignals``, ``SplitSignals``
``signals.initial_loss_ratio``            ``initial_loss_ratio`` of the first step's loss
``signals.initial_weights``               ``WeightProbe``, the very first step
========================================  ============================================================================

=================================================  ===================================================================
Fault                                              What shows it
=================================================  ===================================================================
learning rate far too high, too low                update_to_weight_* of the first step and later; weight_norm;
                                                   top_class_share_pct; dead_share
bad initial gain                                   initial_loss_ratio, logits_std
many sigmoid layers                                first_to_last_grad_ratio; saturated_share
dead units                                         dead_share, dead_share_max
all units alike (zero or constant initialisation)  unit_spread_min, num_identical_unit_layers of the first step
frozen layer                                       zero_update_layers
gradients never cleared                            gradients_cleared; growth of the gradient norms
softmax before cross-entropy                       looks_like_probabilities
too much momentum                                  update_gradient_cosine, weight_norm, growth of the losses
extreme weight decay                               weight_norm_growth, weight_norm
too few units                                      narrowest_units
too few or unevenly distributed samples            num_samples, class_counts, imbalance_ratio, recall_min
unscaled inputs                                    input_mean, input_std, input_max, feature_std_ratio
splits prepared differently                        input_mean and input_std of the splits, and as seen by the model
wrong labels, shuffled labels                      margin_mean_quantiles, negative_margin_share;
                                                   nearest_neighbour_agreement_pct, linear_acc_pct
validation samples copied from training            num_in_train, num_near_train
sorted data                                        batch_label_entropy
validation split too small                         val_standard_error_50_pct, val_standard_error_90_pct
=================================================  ===================================================================
"""

from common.health.activations import ActivationSignals, ActivationWatch, watch_activations
from common.health.batches import BatchMixing
from common.health.data_signals import DataSignals, SplitSignals, measure_data
from common.health.outputs import OutputSignals, initial_loss_ratio, output_signals, recall_signals
from common.health.sample_history import SampleHistory, SampleSignals
from common.health.series import series_signals
from common.health.step_probe import WeightProbe, WeightSignals

__all__ = [
    "ActivationSignals",
    "ActivationWatch",
    "BatchMixing",
    "DataSignals",
    "OutputSignals",
    "SampleHistory",
    "SampleSignals",
    "SplitSignals",
    "WeightProbe",
    "WeightSignals",
    "initial_loss_ratio",
    "measure_data",
    "output_signals",
    "recall_signals",
    "series_signals",
    "watch_activations",
]
