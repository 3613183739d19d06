"""Our static head weights beside those that the package `at2` trains, on the same ablation effects.

The package is no dependency. In an environment of its own:

    python -m venv ENV && ENV/bin/pip install -e . at2
    lightning predict -c configs/attribution/effects.yaml --store STORE
    lightning fit -c configs/attributor.yaml --store STORE
    ENV/bin/python -m tests.benchmarks.compare_at2 STORE ckpts/STORE_NAME/attributor/best.ckpt

The package's trainer gets the attention of every head on the sources of the training answers of the split, and the
logit of each answer's probability in its ablations; its loss, optimiser, schedule and number of steps are its own.
Both weights then score the sources of the validation answers, which neither was trained on. Printed: largest difference
of the two losses on the same batch, rank correlation of the sources' scores, and LDS with its paired difference.
"""

import argparse
import sys
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from datamodules import Split
from probe.attribution import AblationEffects, linear_datamodeling_score
from probe.attribution.learned.batches import TrainingAnswer, batch_of
from probe.attribution.learned.weights import HeadWeights
from probe.metrics import Bootstrap, mean_interval
from probe.models import load_trained


def answer_logits(log_probs: Tensor) -> Tensor:
    """Logit of an answer's probability in each run, `log p - log (1 - p)`, from the sum of its log-probabilities."""
    total = log_probs.double().sum(dim=-1)
    return total - torch.log(-torch.expm1(total))


def package_arrays(answer: TrainingAnswer, runs: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """What the package keeps of an answer: the mean over tokens of kept less removed attention, and the logits."""
    signs = answer.masks[:runs].float() * 2 - 1
    features = torch.einsum("ths,rs->rh", answer.features.float(), signs) / len(answer.features)
    return features[None].half().numpy(), answer_logits(answer.log_probs[:runs])[None].numpy()


def package_weights(answers: Sequence[TrainingAnswer], runs: int, steps: int) -> Tensor:
    """Weights by head, as the package trains them."""
    from at2.attribution.score_estimators import LinearScoreEstimator
    from at2.attribution.trainer import LinearScoreEstimatorTrainer

    arrays = [package_arrays(answer, runs) for answer in answers]

    class Trainer(LinearScoreEstimatorTrainer):  # type: ignore[misc]
        def __init__(self) -> None:
            self.dataset, self.num_masks = arrays, runs
            self.feature_extractor = types.SimpleNamespace(num_features=answers[0].features.shape[1])
            self._task_datas = {number: {"num_targets": 1} for number in range(len(arrays))}

        def get_features_and_outputs(self, i: int) -> tuple[NDArray[Any], NDArray[Any]]:
            return arrays[i]

    trainer = Trainer()
    estimator = LinearScoreEstimator(trainer.feature_extractor)
    trainer.train(estimator, num_iterations=steps, batch_size=min(512, len(arrays)), device="cpu")
    found: Tensor = estimator.linear.weight.detach()[0]
    return found


def loss_difference(weights: HeadWeights, answers: Sequence[TrainingAnswer]) -> float:
    """Largest difference of an answer's loss, `1 - r` of ours and `-r` of the package, on the same predictions."""
    from at2.attribution.trainer import PearsonCorrelationLoss

    differences = []
    for answer in answers:
        batch = batch_of([answer])
        predicted, true, _ = weights.predictions(batch, "answer")
        ours, _ = weights.loss(batch)
        differences.append(float(ours - 1 - PearsonCorrelationLoss()(predicted, true)))
    return float(np.abs(differences).max())


def scores(answer: TrainingAnswer, weights: Tensor) -> Tensor:
    """Score of each source for the answer: weighted attention, summed over tokens."""
    return torch.einsum("ths,h->s", answer.features.float(), weights)


def lds(answer: TrainingAnswer, weights: Tensor) -> float:
    """Linear datamodeling score of the answer's ablations."""
    return linear_datamodeling_score(scores(answer, weights), answer.masks, answer.log_probs.sum(dim=1))


def main() -> None:
    """Train by the package, and print both on the validation answers with 95 % intervals."""
    parser = argparse.ArgumentParser(description="Our static head weights beside those of the package at2.")
    parser.add_argument("store")
    parser.add_argument("checkpoint")
    parser.add_argument("--fractions", type=float, nargs=3, default=(0.8, 0.2, 0.0), help="of the fit's data.split")
    parser.add_argument("--steps", type=int, default=1000, help="of the package's training (its own default)")
    args = parser.parse_args()
    data = AblationEffects(args.store, split=Split(fractions=tuple(args.fractions)))
    data.setup("test")
    rows = data.split.rows(data._numbers)
    parts = {
        name: [TrainingAnswer.of(data.effects[row], "attention") for row in rows[name].tolist()]
        for name in ("train", "val")
    }
    fitted = load_trained(HeadWeights, args.checkpoint, llm=data.identity)
    ours = fitted.forward(torch.zeros(1, data.hidden_size))[0].detach()
    runs = min(len(answer.masks) for answer in parts["train"])
    theirs = package_weights(parts["train"], runs, args.steps)
    found = {
        "LDS, ours": [lds(answer, ours) for answer in parts["val"]],
        "LDS, at2": [lds(answer, theirs) for answer in parts["val"]],
        "rank correlation of scores": [
            float(stats.spearmanr(scores(answer, ours), scores(answer, theirs)).statistic) for answer in parts["val"]
        ],
    }
    found["LDS, ours minus at2"] = np.subtract(found["LDS, ours"], found["LDS, at2"]).tolist()
    sys.stdout.write(f"{len(parts['train'])} training answers, {runs} ablations each; {len(parts['val'])} evaluated\n")
    with torch.no_grad():
        sys.stdout.write(f"loss, largest difference: {loss_difference(fitted, parts['val']):.2g}\n")
    for name, values in found.items():
        low, high = mean_interval(np.array(values), share=False, bootstrap=Bootstrap())
        sys.stdout.write(f"{name}: {np.mean(values):.4f} [{low:.4f}, {high:.4f}]\n")


if __name__ == "__main__":
    main()
