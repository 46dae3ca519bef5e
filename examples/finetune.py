"""A classifier of Hugging Face, read from a local folder and fine-tuned on a pipeline of three stages.

python examples/finetune.py [--updates N]

No network: the example makes the folder itself, a small BERT with random weights.  It reads a picture of a handwritten
digit as 64 tokens, one a pixel, of 5 grey levels.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

import stalegrid


class Digits(Dataset[dict[str, Any]]):
    """Pictures as a model of Hugging Face takes them: dictionaries of its arguments, labels among them."""

    def __init__(self, start: int, stop: int) -> None:
        bundle = load_digits()
        self.tokens = torch.tensor(bundle.data[start:stop], dtype=torch.int64) // 4
        self.labels = torch.tensor(bundle.target[start:stop])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        mask = torch.ones(64, dtype=torch.int64)
        return {"input_ids": self.tokens[index], "attention_mask": mask, "labels": self.labels[index]}


def made(folder: Path) -> Path:
    """Write a small classifier into a folder, as a download would."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=64, num_labels=10, initializer_range=0.1,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def main() -> None:
    """Read, train, measure and write again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=600)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = AutoModelForSequenceClassification.from_pretrained(made(Path(name, "model")))
        result = stalegrid.train(
            model,
            Digits(0, 1437),
            test=Digits(1437, 1797),
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
            method="pipedream",
            stages=3,
            batch_size=32,
            updates=asked.updates,
        )
        result.model.save_pretrained(Path(name, "trained"))
    print(f"test accuracy {result.test_accuracy:.1%}, cuts {', '.join(result.summary['cuts'])}")


if __name__ == "__main__":
    main()
