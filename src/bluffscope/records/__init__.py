"""What the stages of a run hand each other, and the glossary of tensor axes.

Axis glossary (used in every jaxtyping shape):

* ``item``: items of a batch (pairs, in a run over pairs), in the batch's own order.
* ``view``: the texts of an item, in the order of its arrangement's views: prompt, fact, hallucination of a pair.
* ``read``: read positions of a batch: one for each item and view, more with ``position="completion-mean"``.
* ``further``: reads at further positions (``position=("last", "completion-mean")``), of which residuals are kept.
* ``target``: completion tokens whose log-probability is asked for.
* ``row``, ``token``: rows of a packed batch and the slots of a row.
* ``layer``: layers measured, in the order the user gave.
* ``active``: active features of one read; ``d_model``: residual width; ``d_sae``: dictionary width.
"""

from bluffscope.records.batches import (
    Activations,
    DistinctReads,
    Encoded,
    Features,
    FurtherReads,
    LayerState,
    LensReading,
    PackedBatch,
    Targets,
)
from bluffscope.records.items import (
    AUTO_JOIN,
    PAIRS,
    PROMPTED,
    STATEMENTS,
    VIEWS,
    Arrangement,
    Item,
    ItemT,
    LabelledText,
    Numbered,
    Pair,
    Sequence,
    Shard,
    Stretch,
    Tokenized,
    View,
    joined,
    spread,
)

__all__ = [
    "AUTO_JOIN",
    "PAIRS",
    "PROMPTED",
    "STATEMENTS",
    "VIEWS",
    "Activations",
    "Arrangement",
    "DistinctReads",
    "Encoded",
    "Features",
    "FurtherReads",
    "Item",
    "ItemT",
    "joined",
    "LabelledText",
    "LayerState",
    "LensReading",
    "Numbered",
    "PackedBatch",
    "Pair",
    "Sequence",
    "Shard",
    "spread",
    "Stretch",
    "Targets",
    "Tokenized",
    "View",
]
