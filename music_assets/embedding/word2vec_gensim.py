"""Training with gensim's word2vec, in a process of its own (`gensim_process.py`).

gensim trains in C code that neither signals nor exceptions interrupt; a process can be killed. It also returns its
memory to the system when it ends.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from music_assets.embedding.corpus import Part, write_corpus
from music_assets.embedding.interactions import Interactions
from music_assets.embedding.word2vec import (
    Hyperparameters,
    OnProgress,
    Progress,
    TrainingError,
    WordVectors,
    select_artists,
)
from music_assets.tables import EMBEDDING_DIMENSIONS


def train(
    interactions: Interactions,
    hyperparameters: Hyperparameters,
    on_progress: OnProgress | None = None,
    folder: Path | None = None,
    threads: int | None = None,
) -> WordVectors:
    """Train word2vec on the artists with enough distinct listeners, see `word2vec.Trainer`.

    `threads` is the default of `workers`; None: one per core.

    `on_progress` is called after each part of a pass. The corpus takes about 6 bytes a word on disk.
    """
    min_listeners, trained = select_artists(interactions, hyperparameters)
    with tempfile.TemporaryDirectory(prefix="word2vec-", dir=folder) as name:
        folder = Path(name)
        parts = write_corpus(interactions, trained, hyperparameters.seed, folder)
        words = sum(part.words for part in parts)
        passes = hyperparameters.passes_for(words)
        counts = np.bincount(interactions.artists, weights=interactions.weights, minlength=len(trained))
        vocabulary = {str(artist): int(counts[artist]) for artist in np.flatnonzero(trained)}
        _write_task(folder, hyperparameters, threads or os.cpu_count() or 1, passes, parts, vocabulary)
        with _process(folder) as process:
            for line in process.stdout or ():
                if on_progress:
                    on_progress(Progress(**json.loads(line)))
            if process.wait() != 0:
                raise TrainingError(f"word2vec failed with exit code {process.returncode}: {_last_error(folder)}")
        vectors = np.load(folder / "vectors.npy")
    return WordVectors(np.flatnonzero(trained), vectors, min_listeners, passes, words)


def _write_task(
    folder: Path,
    hyperparameters: Hyperparameters,
    threads: int,
    passes: int,
    parts: list[Part],
    vocabulary: dict[str, int],
) -> None:
    task = {
        "word2vec": {
            "vector_size": EMBEDDING_DIMENSIONS,
            "sg": 1,
            "min_count": 1,
            "workers": hyperparameters.workers or threads,
            **hyperparameters.model_dump(include={"seed", "window", "negative", "ns_exponent", "sample"}),
        },
        **hyperparameters.model_dump(include={"alpha", "min_alpha", "context_share"}),
        "passes": passes,
        "vocabulary": vocabulary,
        "parts": [{**asdict(part), "path": str(part.path)} for part in parts],
    }
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")


@contextmanager
def _process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the training process and kill it at the end of the block. It exits when its stdin is closed."""
    with (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "music_assets.embedding.gensim_process", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()


def _last_error(folder: Path) -> str:
    lines = (folder / "errors.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "killed, possibly because memory ran out"
