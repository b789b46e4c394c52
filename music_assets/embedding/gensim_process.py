"""The process that trains: `python -m music_assets.embedding.gensim_process FOLDER`.

Reads `task.json`, `artists.npy`, `counts.npy` and the corpus in the folder, writes a line of JSON to stdout after each
part, and `input.npy` and `context.npy` at the end. It ends as soon as its stdin is closed, that is when the process
that started it is gone, however that happened.
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
    """Train as the folder's task says."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.excepthook = _end_with_thread
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    tokens = [str(number) for number in np.load(folder / "artists.npy")]
    model = Word2Vec(**task["word2vec"])
    model.build_vocab_from_freq(dict(zip(tokens, np.load(folder / "counts.npy").tolist(), strict=True)))
    _train(model, task)
    order = [model.wv.key_to_index[token] for token in tokens]
    np.save(folder / "input.npy", model.wv.vectors[order])
    np.save(folder / "context.npy", model.syn1neg[order])


def _end_with_parent() -> None:
    # Not through sys.stdin: a thread waiting in it holds a lock that the interpreter needs to end.
    os.read(0, 1)
    os._exit(1)


def _end_with_thread(failure: threading.ExceptHookArgs) -> None:
    """End the process: gensim would wait forever for a training thread that has failed."""
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
            # Of all threads gensim keeps the loss of the one that ended last, so it stands for its share of the words.
            "loss": float(model.get_latest_training_loss()) * model.workers / part["words"],
            "seconds_left": (total - done) / speed,
        }
        print(json.dumps(progress), flush=True)  # noqa: T201


def _alpha(task: dict[str, Any], share: float) -> float:
    return float(task["alpha"] + (task["min_alpha"] - task["alpha"]) * share)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
