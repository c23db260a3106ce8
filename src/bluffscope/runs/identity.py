"""What made a run's numbers: for the manifest, the table's metadata, and whoever wants to go on with the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bluffscope import __version__
from bluffscope.config import ONCE_TRUE_OR_FALSE, RunConfig
from bluffscope.host.stopwatch import Tally
from bluffscope.pairs import Scan, Source
from bluffscope.pipeline.worker import Loaded
from bluffscope.runs.workers import Crew
from bluffscope.table.folder import plain
from bluffscope.table.manifest import assemble_manifest, metric_versions
from bluffscope.table.merge import MergeResult
from bluffscope.table.schema import SCHEMA_VERSION

FREE: Final = frozenset(
    {
        *("device", "batch_size", "batch_tokens", "row_tokens", "engine", "workers", "address"),
        *("max_quarantine", "allow_unsound", "fidelity", "figures", "out", "resume", "dry_run"),
    }
)
"""Options that change where and how a run is done but not what comes out, beyond rounding."""
BY_IDENTITY: Final = frozenset({"preset", "model", "revision", "sae", "data", "analysis"})
"""Options that name what is compared by its content: it may lie elsewhere now."""
LATER: Final = {
    **{"cluster_by": "both", "trajectory": "off", "p_true": False, "chat": False, "system": None},
    **{"schema": "auto", "prompt_template": None, "pairing": "aligned", "labels": []},
}
"""Options that older runs lack, at the value they had: the digest leaves them out, so that such runs can be resumed."""
_WHEREABOUTS: Final = frozenset({"name", "folder", "file", "in_memory"})
"""Of a model's or SAE's identity: where it lay."""


@dataclass(frozen=True)
class Identity:
    """Everything that a run's results depend on."""

    options: Mapping[str, Any]
    """Those that change results, resolved; by name."""
    model: Mapping[str, Any]
    saes: Mapping[str, Mapping[str, Any]]
    """By layer."""
    data: Mapping[str, Any]
    """``digest`` and number of ``pairs``."""
    metric_versions: Mapping[str, int]
    """Of every column, in the table's order."""
    schema_version: int = SCHEMA_VERSION

    def entry(self) -> dict[str, Any]:
        """All of it and its digest, as JSON knows it."""
        return plain({**vars(self), "digest": self.digest()})

    def digest(self) -> str:
        """32 hex digits; the same wherever model, SAEs and data lie."""
        content = plain(
            {
                **vars(self),
                "options": {name: value for name, value in self.options.items() if LATER.get(name, ...) != value},
                "model": placeless(self.model),
                "saes": {layer: placeless(sae) for layer, sae in self.saes.items()},
                "metric_versions": list(self.metric_versions.items()),
            }
        )
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def identity_of(config: RunConfig, loaded: Loaded, scan: Scan) -> Identity:
    """The identity of a run whose model and SAEs are loaded and whose options are complete."""
    return Identity(
        options=result_options(config),
        model=loaded.identity,
        saes={str(layer): identity for layer, identity in loaded.sae_identities.items()},
        data={"digest": scan.digest, "pairs": scan.count},
        metric_versions=metric_versions(loaded.columns),
    )


def result_options(config: RunConfig) -> dict[str, Any]:
    """The options that change results, by name, as config.yaml has their values, or as older ones have."""
    values = {name: value for group in vars(config).values() for name, value in vars(group).items()}
    values |= {name: {"on": True, "off": False}.get(values[name], values[name]) for name in ONCE_TRUE_OR_FALSE}
    return plain({name: value for name, value in values.items() if name not in FREE | BY_IDENTITY})


def placeless(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A model's or SAE's identity without where it lay."""
    return {key: value for key, value in identity.items() if key not in _WHEREABOUTS}


def table_metadata(config: RunConfig, identity: Identity) -> dict[str, str]:
    """The key-value metadata of metrics.parquet."""
    return {
        "bluffscope": __version__,
        "model": str(config.model.model),
        "sae": str(config.model.sae),
        "layers": " ".join(map(str, config.model.layers)),
        "position": " ".join(config.measure.positions),
        "dtype": config.model.dtype,
        "quantize": config.model.quantize,
        "seed": str(config.measure.seed),
        "data_digest": str(identity.data["digest"]),
        "run_digest": identity.digest(),
    }


def run_manifest(
    config: RunConfig,
    source: Source,
    scan: Scan,
    crew: Crew,
    merged: MergeResult,
    sessions: Sequence[Mapping[str, Any]],
    lint: dict[str, Any],
) -> dict[str, Any]:
    """The content of manifest.json; timings and work are summed over the sessions."""
    loaded = crew.loaded
    done = sum((Tally(session.get("timings", {}), session.get("computed", {})) for session in sessions), Tally())
    counts = {"pairs": scan.count, "measured": merged.rows, "quarantined": merged.quarantined, **done.work}
    commit = {} if source.commit is None else {"commit": source.commit}
    return assemble_manifest(
        loaded.columns,
        done.seconds,
        model=loaded.identity,
        saes=loaded.sae_identities,
        device=config.model.device,
        dtype=config.model.dtype,
        seeds={"noise": config.measure.seed},
        counts=counts,
        lint=lint,
        data={
            "name": source.name,
            "digest": scan.digest,
            "domains": scan.domains,
            "cluster_by": source.cluster_by,
            **source.reading(),
            **commit,
        },
        memory=crew.memory(scan.count),
        workers=None if crew.workers is None else crew.workers(sessions[-1]["pairs"]),
        strategy=loaded.strategy,
        quantize=config.model.quantize,
        sessions=sessions,
        files=merged.tables,
    )
