"""The gensim training process: `python -m music_assets.embedding.gensim_process FOLDER`.

Reads `task.json` and the corpus from the folder, prints a line of JSON after each part, and writes `vectors.npy`, one
row per word of the vocabulary. Exits when its stdin is closed, that is, when its parent has died.
"""

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from gensim.models import Word2Vec


def main(folder: Path) -> None:
    """Run the task of a folder."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    threading.excepthook = _exit_with_thread
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    model = Word2Vec(**task["word2vec"])
    model.build_vocab_from_freq(task["vocabulary"])
    _train(model, task)
    order = [model.wv.key_to_index[word] for word in task["vocabulary"]]
    np.save(folder / "vectors.npy", model.wv.vectors[order] + task["context_share"] * model.syn1neg[order])


def _exit_with_parent() -> None:
    # Not sys.stdin.read: it holds a lock that the interpreter needs to shut down.
    os.read(0, 1)
    os._exit(1)


def _exit_with_thread(failure: threading.ExceptHookArgs) -> None:
    """Exit when a training thread fails; gensim would wait for it forever."""
    traceback.print_exception(failure.exc_value)
    sys.stderr.flush()
    os._exit(1)


def _train(model: Word2Vec, task: dict[str, Any]) -> None:
    parts, passes, start = task["parts"], task["passes"], time.monotonic()
    words_per_pass = sum(part["words"] for part in parts)
    total, done = passes * words_per_pass, 0
    for part in parts * passes:
        model.train(
            corpus_file=part["path"],
            total_words=part["words"],
            total_examples=part["sentences"],
            epochs=1,
            start_alpha=_alpha(task, done / total),
            end_alpha=_alpha(task, (done + part["words"]) / total),
            compute_loss=True,
        )
        done += part["words"]
        speed = done / (time.monotonic() - start)
        progress = {
            "passes_done": done / words_per_pass,
            "passes": passes,
            "words_per_second": speed,
            # gensim reports the loss of the last thread to finish, which has trained 1 / workers of the words.
            "loss": float(model.get_latest_training_loss()) * model.workers / part["words"],
            "seconds_left": (total - done) / speed,
        }
        print(json.dumps(progress), flush=True)  # noqa: T201


def _alpha(task: dict[str, Any], share: float) -> float:
    return float(task["alpha"] + (task["min_alpha"] - task["alpha"]) * share)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
