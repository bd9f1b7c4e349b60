"""Every root cause, in the order in which one explains the next. A new cause is one rule and one entry here."""

from __future__ import annotations

from common.diagnosis import causes_code as code
from common.diagnosis import causes_data as data
from common.diagnosis import causes_outcome as outcome
from common.diagnosis import causes_settings as settings
from common.diagnosis.findings import ByHand, Cause

# The ranking: among the causes that count, an earlier entry comes before a later one, however sure each is. For what
# stands higher makes the numbers of what stands lower: labels and code before settings, settings before the fit that
# they lead to, and what is only measured badly or slowly at the end.
CAUSES = (
    # Records that are facts of their own
    Cause("non_finite_inputs", "nan_loss", "the data holds missing, NaN or infinite values",
          "One such value makes the loss of its batch NaN; the rows are left out, and with them what they would teach.",
          data.non_finite_inputs, by_hand=ByHand("repair_rows", "Repair or remove the rows that the log names under "
          "[DATA]; the run went on without them."), phase=2),
    # Code: network and loop
    Cause("gradients_not_cleared", "convergence_stall", "gradients are never cleared",
          "Each step follows the sum of all earlier gradients, so it turns ever more slowly and grows ever longer.",
          code.gradients_not_cleared, by_hand=ByHand("clear_gradients", "Call optimizer.zero_grad() before every "
          "backward pass of the training loop."), phase=2),
    Cause("double_softmax", "convergence_stall", "the network puts out probabilities, and the loss expects logits",
          "Softmax applied twice flattens the gradient and holds the loss above ln(e + C - 1) - 1.",
          code.double_softmax, by_hand=ByHand("return_logits", "Remove the softmax at the end of the network; the loss "
          "applies it."), phase=2),
    Cause("unscaled_inputs", "exploding_gradients", "the inputs are far from mean 0 and deviation 1",
          "A gradient is proportional to its input, so no single learning rate suits all features.",
          data.unscaled_inputs, ("scale_inputs",)),
    Cause("splits_prepared_differently", "data_quality", "validation data is prepared unlike training data",
          "The network is asked about inputs of a kind it has never seen.",
          data.splits_prepared_differently, by_hand=ByHand("prepare_splits_alike", "Prepare every split by one and the "
          "same path, with the training data's mean and deviation."), phase=2),
    Cause("identical_units", "convergence_stall", "all units of a layer are the same",
          "Equal units get equal gradients, so they stay one unit for ever; weights that are all 0 pass nothing on.",
          code.identical_units, by_hand=ByHand("initialise_at_random", "Initialise the weights at random, never with "
          "a constant."), phase=2),
    Cause("dead_units", "vanishing_gradients", "most units of a layer give the same output for every sample",
          "No gradient passes them, so neither they nor the layers before them learn.",
          code.dead_units, ("revive_units",), ByHand("initialise_biases_with_zero", "Initialise biases with 0."), 2),
    Cause("bad_initialisation", "exploding_gradients", "the initial weights are far too large",
          "The network begins sure of wrong answers and spends its training unlearning them.",
          code.bad_initialisation, by_hand=ByHand("initialise_with_usual_gain", "Initialise weights after He et al. "
          "(relu) or Glorot (tanh), without a factor of your own."), phase=2),
    # Data
    Cause("leakage", "data_quality", "validation holds samples of the training data",
          "What was seen in training is no test: validation accuracy is higher than it will be in use.",
          data.leakage, ("check_leakage",), ByHand("remove_shared_samples", "Remove from validation what training "
          "holds too, or split by what must not be shared."), 2),
    Cause("too_few_samples", "overfitting", "there are too few training samples of each class",
          "They are memorised within seconds, whatever the network.",
          data.too_few_samples, ("data_augmentation", "weight_decay", "dropout"), ByHand("collect_samples", "Collect "
          "more training samples; settings help little."), 2),
    Cause("class_imbalance", "data_quality", "some classes are far rarer than others",
          "Never predicting a rare class costs next to nothing, and accuracy does not show it.",
          data.class_imbalance, ("balance_classes",)),
    Cause("label_errors", "data_quality", "many labels are wrong",
          "The network contradicts them with confidence, learns the rest, and is then measured against wrong ones.",
          data.label_errors, ("clean_labels",), ByHand("correct_labels", "Review the suspicious samples listed below "
          "and correct or remove them."), 2),
    Cause("shuffled_labels", "data_quality", "labels do not belong to their inputs",
          "Nothing that holds for new samples can be learnt; what training accuracy there is, is memory.",
          data.shuffled_labels, by_hand=ByHand("match_labels", "Find where inputs and labels are brought together, and "
          "look at twenty samples beside their labels."), phase=2),
    # What keeps a network from learning
    Cause("excessive_momentum", "exploding_gradients", "momentum and learning rate together are far too high",
          "Old gradients carry the weights past every minimum.",
          settings.excessive_momentum, ("lower_momentum", "reduce_learning_rate", "warm_up")),
    Cause("excessive_weight_decay", "convergence_stall", "weight decay is far too strong",
          "The penalty is stronger than the gradient of the loss, and the best weights are zero.",
          settings.excessive_weight_decay, ("relax_regularization", "overfitting/weight_decay")),
    Cause("learning_rate_too_high", "exploding_gradients", "the learning rate is far too high",
          "Steps longer than the weights themselves throw away what earlier ones achieved.",
          settings.learning_rate_too_high,
          ("convergence_stall/lower_excessive_lr", "reduce_learning_rate", "clip_gradients", "warm_up")),
    Cause("loss_not_finite", "nan_loss", "the loss was not finite, again and again",
          "A step that is too long, or a number beyond the format's range, leaves nothing to learn from.",
          settings.loss_not_finite, ("reduce_learning_rate", "clip_gradients", "warm_up")),
    Cause("frozen_layers", "convergence_stall", "layers take no part in the training",
          "They stay at their random initial weights, and the others make do with random features.",
          code.frozen_layers, by_hand=ByHand("unfreeze_layers", "Set requires_grad of these layers, and give their "
          "parameters to the optimizer."), phase=2),
    Cause("saturating_activations", "vanishing_gradients", "the gradient vanishes on its way to the first layers",
          "Each sigmoid or tanh shrinks it, so that a deep stack leaves the first layers as they were at random.",
          code.saturating_activations, ("use_relu",), ByHand("replace_saturating_activations", "Use relu or gelu in "
          "the network's code, with normalisation or shortcuts.")),
    Cause("learning_rate_too_low", "convergence_stall", "the learning rate is far too low",
          "Steps this short do not leave the start within any number of epochs that one would wait for.",
          settings.learning_rate_too_low, ("increase_lr",)),
    Cause("unshuffled_data", "convergence_stall", "the batches are not mixed",
          "Each batch holds few classes and undoes what the one before taught.",
          code.unshuffled_data, by_hand=ByHand("shuffle_every_epoch", "Draw a new random order of the training samples "
          "in every epoch."), phase=2),
    Cause("excessive_dropout", "underfitting", "dropout is far too strong",
          "Too few units are left in each step to carry the answer.",
          settings.excessive_dropout, ("convergence_stall/relax_regularization",)),
    Cause("network_too_small", "underfitting", "a layer is too narrow for the number of classes",
          "All that the classifier gets to know passes through these few numbers.",
          settings.network_too_small, ("increase_capacity",)),
    Cause("too_few_updates", "convergence_stall", "the weights are updated too few times",
          "With one huge batch an epoch is one step, and what counts is the number of steps.",
          settings.too_few_updates, ("more_updates",)),
    # What it came to
    Cause("unsteady_validation", "data_quality", "validation accuracy jumps by more than chance",
          "Either the steps are too long at the end, or training and validation data differ.",
          data.unsteady_validation,
          ("exploding_gradients/reduce_learning_rate", "general_improvement/cosine_schedule")),
    Cause("memorised", "overfitting", "the network has memorised its training samples",
          "It has learnt what is particular to them beside what they have in common.",
          outcome.memorised, ("data_augmentation", "dropout", "weight_decay")),
    Cause("trained_too_short", "underfitting", "the training ended while it was still learning",
          "The loss was still falling in the last epochs.",
          outcome.trained_too_short, ("train_longer", "increase_lr")),
    Cause("behind_simple_methods", "underfitting", "the network does not reach what simple methods reach",
          "Something keeps it from learning, and none of the known signs says what.",
          outcome.behind_simple_methods, ("increase_lr", "train_longer")),
    Cause("crashed", "crashes", "the run did not come to its end",
          "What is measured here is that of an unfinished training.", outcome.crashed, phase=2),
    # What was repaired, how well it is measured, how fast it goes
    Cause("one_off_non_finite", "nan_loss", "a step's loss was not finite, once",
          "The batch went well when it was replayed, so neither the data nor the rate is at fault.",
          settings.one_off_non_finite, ("restart_from_checkpoint",)),
    Cause("tiny_validation", "data_quality", "there are too few validation samples to tell good from better",
          "One sample weighs several points, so the best epoch is chosen by chance.",
          data.tiny_validation, by_hand=ByHand("enlarge_validation_split", "Give validation more samples: "
          "data.split.val, or a larger file of its own."), phase=2),
    Cause("slow_loading", "resource_inefficiency", "the training waits for its data",
          "Steps take as long as reading and preparing a batch takes.",
          outcome.slow_loading, ("increase_workers", "pin_memory"), ByHand("hold_data_in_memory", "Prepare the data "
          "once, in advance, and hold it in memory where it fits (data.cache).")),
    Cause("idle_gpu", "resource_inefficiency", "the GPU is idle for much of the time",
          "Starting a kernel takes the same time for few samples as for many.",
          outcome.idle_gpu, ("increase_batch_size", "increase_workers", "pin_memory")),
)  # fmt: skip
BY_ID = {cause.id: cause for cause in CAUSES}
