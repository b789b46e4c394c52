"""Matrix factorisation by implicit: `python -m benchmarks.peers.implicit_als FOLDER`.

Alternating least squares with 50 factors, on the same weights. Tuned by https://benfred.github.io/implicit/: BLAS keeps
to one thread, since the solver has threads of its own.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks import embedding_files


def main(folder: Path) -> None:
    """Train, and write the factors: their product scores, as it is."""
    pairs = pq.read_table(folder / embedding_files.PAIRS)
    ids, users = np.unique(pairs["user_id"].to_numpy(), return_inverse=True)
    names = pairs["artist_name"].combine_chunks().dictionary_encode()
    weights = csr_matrix((pairs["weight"].to_numpy().astype(np.float32), (users, names.indices.to_numpy())))
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=embedding_files.DIMENSIONS, regularization=30, alpha=10, iterations=15, random_state=0
        )
        model.fit(weights, show_progress=False)
    artists = names.dictionary.to_numpy(zero_copy_only=False).astype(str)
    embedding_files.write(folder, "artists", artists, model.item_factors)
    embedding_files.write(folder, "users", ids, model.user_factors)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
