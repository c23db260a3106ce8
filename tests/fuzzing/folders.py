"""Folders of models, tokenizers, SAEs and runs, with accidents."""

from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import transformers

from fuzzing.values import copied, damage_file, dumped, files_of, mutate, rewrite, value

SHAPES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")
CONFIG_KEYS = (
    *SHAPES,
    *("n_embd", "n_layer", "n_head", "n_positions", "intermediate_size", "max_position_embeddings", "model_type"),
    *("architectures", "dtype", "rope_parameters", "rope_theta", "sliding_window", "layer_types", "hidden_act"),
    *("rms_norm_eps", "attention_dropout", "tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"),
)
OTHERS = (
    *("mamba", "mamba2", "rwkv", "t5", "bert", "clip", "whisper", "falcon", "bloom", "mixtral", "jamba", "gpt_oss"),
    *("deepseek_v3", "phi3", "opt", "gpt_bigcode", "codegen", "xlnet", "bamba", "recurrent_gemma", "zamba2", "mpt"),
    *("openai-gpt", "gptj", "stablelm", "cohere2", "olmo2", "granite", "starcoder2", "dbrx", "biogpt", "xglm"),
)


def damage_model(rng: random.Random, folder: Path) -> str:
    """A model's folder after one or two accidents."""
    return "; ".join(rng.choice(_MODEL)(rng, folder) for _ in range(rng.choice([1, 1, 2])))


def _config(rng: random.Random, folder: Path) -> str:
    def change(rng: random.Random, document: Any) -> str:
        return mutate(rng, document, keys=CONFIG_KEYS)

    return rewrite(rng, folder / "config.json", change, rng.choice([1, 1, 1, 3]))


def _other_architecture(rng: random.Random, folder: Path) -> str:
    """The config.json of another family, as transformers has it by default, or only its name."""
    file = folder / "config.json"
    kind = rng.choice(OTHERS)
    if file.is_file() and rng.random() < 0.5:
        own = json.loads(file.read_text())
        default = transformers.AutoConfig.for_model(kind).to_dict()
        file.write_text(json.dumps(default | {key: own[key] for key in SHAPES if key in own and key in default}))
        return f"config.json of {kind}"
    return rewrite(rng, file, lambda _, document: document.update(model_type=kind) or f"model_type {kind}")


def _side_files(rng: random.Random, folder: Path) -> str:
    names = ("tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "tokenizer.json")
    return rewrite(rng, folder / rng.choice(names), times=rng.choice([1, 2]))


def _any_file(rng: random.Random, folder: Path) -> str:
    return damage_file(rng, rng.choice(files_of(folder)))


def _weights(rng: random.Random, folder: Path) -> str:
    file = next(iter(folder.glob("*.safetensors")), None)
    return damage_safetensors(rng, file) if file and file.is_file() else "no weights"


def _index(rng: random.Random, folder: Path) -> str:
    names = ["model-00001-of-00002.safetensors", "model.safetensors", "nowhere.safetensors", value(rng)]
    file = folder / "model.safetensors.index.json"
    keys = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", ""]
    index: Any = {"metadata": {"total_size": value(rng, 1)}, "weight_map": {key: rng.choice(names) for key in keys}}
    mutate(rng, index)
    file.write_text(dumped(index))
    if rng.random() < 0.5 and (folder / "model.safetensors").is_file():
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    return f"index {str(index)[:80]}"


_MODEL = (
    _config,
    _config,
    _config,
    _other_architecture,
    _side_files,
    _side_files,
    _any_file,
    _weights,
    _weights,
    _index,
)


def damage_safetensors(rng: random.Random, file: Path) -> str:
    """Accidents in the header (names, shapes, dtypes, offsets) or in the numbers."""
    content = file.read_bytes()
    (size,) = struct.unpack("<Q", content[:8]) if len(content) >= 8 else (0,)
    if not 0 < size <= len(content) - 8:
        return damage_file(rng, file)
    data = bytearray(content[8 + size :])
    try:
        header = json.loads(content[8 : 8 + size])
    except ValueError:
        return damage_file(rng, file)
    if rng.random() < 0.3 and len(data) >= 64:
        numbers = np.frombuffer(data, np.float32, len(data) // 4)
        places = [rng.randrange(len(numbers)) for _ in range(rng.choice([1, len(numbers) // 3 + 1]))]
        numbers[places] = rng.choice([np.nan, np.inf, 1e38, -1e38, 0.0])
        said = "weights that are no numbers"
    elif rng.random() < 0.3:
        name = rng.choice([name for name in header if name != "__metadata__"])
        header[name]["dtype"] = rng.choice(["F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "C64", "nope"])
        said = f"dtype of {name}"
    else:
        said = mutate(rng, header)
    made = dumped(header).encode()
    claimed = len(made) if rng.random() < 0.95 else rng.choice([0, 2**40, 2**63, len(made) - 1])
    file.write_bytes(struct.pack("<Q", claimed) + made + bytes(data))
    return f"{file.name} {said}"


def damage_tokenizer(rng: random.Random, folder: Path) -> str:
    """A tokenizer of another kind or with accidents; the model is whole."""
    file = folder / "tokenizer.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    parts: dict[str, list[Any]] = {
        "normalizer": [
            None,
            {"type": "NFD"},
            {"type": "Lowercase"},
            {"type": "Replace", "pattern": {"Regex": rng.choice(["(a+)+$", "[", "", "."])}, "content": ""},
            {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
            {"type": "BertNormalizer"},
        ],
        "pre_tokenizer": [
            None,
            {"type": "Whitespace"},
            {"type": "Metaspace", "replacement": rng.choice(["▁", "", "ab"]), "prepend_scheme": "always"},
            {"type": "Split", "pattern": {"Regex": "(?:x|x)*y"}, "behavior": "Removed", "invert": rng.random() < 0.5},
        ],
        "decoder": [None, {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "nope"}],
        "post_processor": [
            None,
            {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
            {"type": "BertProcessing", "sep": ["x", 2**31], "cls": ["y", 0]},
        ],
        "truncation": [{"max_length": 0, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}, None],
        "padding": [
            {"strategy": {"Fixed": rng.choice([8, 100_000])}, "direction": "Left", "pad_to_multiple_of": None}
            | {"pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
        ],
        "model": [
            {"type": "WordLevel", "vocab": {"the": 0, "<unk>": rng.choice([1, 0, 2**31])}, "unk_token": "<unk>"},
            {"type": "Unigram", "vocab": [["a", -1.0], ["b", value(rng)]], "unk_id": rng.choice([None, 0, 99])},
            {
                "type": "WordPiece",
                "vocab": {"a": 0},
                "unk_token": rng.choice(["a", "[UNK]"]),
                "max_input_chars_per_word": 0,
            }
            | {"continuing_subword_prefix": "##"},
        ],
        "added_tokens": [
            [{"id": rng.choice([0, 400, 2**31, -1]), "content": rng.choice(["", " ", "Paris"]), "special": True}]
        ],
    }
    if rng.random() < 0.6:
        name = rng.choice(list(parts))
        document[name] = rng.choice(parts[name])
        said = f"{name} {str(document[name])[:60]}"
    else:
        said = mutate(rng, document, keys=("model", "added_tokens", "pre_tokenizer", "decoder"))
    file.write_text(dumped(document), encoding="utf-8")
    if rng.random() < 0.3:
        said += "; " + rewrite(rng, folder / "tokenizer_config.json", times=2)
    return f"tokenizer.json {said}"


SAE_KEYS = (
    *("d_in", "d_sae", "dtype", "device", "architecture", "normalize_activations", "reshape_activations", "metadata"),
    *("apply_b_dec_to_input", "k", "rescale_acts_by_decoder_norm"),
)
ARCHITECTURES = ("standard", "gated", "topk", "batchtopk", "temporal", "transcoder", "matryoshka_batchtopk", "nope")


def damage_saes(rng: random.Random, folder: Path) -> str:
    """SAEs after one or two accidents."""
    if (archives := list(folder.rglob("params.npz"))) and rng.random() < 0.9:
        return _archive(rng, rng.choice(archives))
    target = rng.choice([path for path in folder.iterdir() if path.is_dir()])
    said = []
    for _ in range(rng.choice([1, 1, 2])):
        how, config = rng.random(), target / "cfg.json"
        if how < 0.5 and config.is_file():
            said.append(rewrite(rng, config, lambda rng, document: mutate(rng, document, keys=SAE_KEYS)))
        elif how < 0.65 and config.is_file():
            chosen = rng.choice(ARCHITECTURES)
            added = {"architecture": chosen, "k": rng.choice([0, 1, 5, 10**6, value(rng)])}
            said.append(rewrite(rng, config, lambda _, document, more=added: document.update(more) or str(more)))
        elif how < 0.9 and (target / "sae_weights.safetensors").is_file():
            said.append(damage_safetensors(rng, target / "sae_weights.safetensors"))
        elif files := files_of(target):
            said.append(damage_file(rng, rng.choice(files)))
        if rng.random() < 0.05:
            target.rename(target.with_name(rng.choice(["layer_", "layer_99", "layer_٣", "layer_" + "9" * 50])))
            break
    return f"{target.name}: {'; '.join(map(str, said))}"


def _archive(rng: random.Random, file: Path) -> str:
    if rng.random() < 0.3:
        return damage_file(rng, file)
    with np.load(file) as held:
        arrays: dict[str, Any] = dict(held)
    name = rng.choice(list(arrays))
    array = arrays[name]
    made = [array.T, array[:0], array[..., None], array * np.nan, array.astype(np.float16), array.astype(np.int64)]
    arrays[name] = rng.choice([*made, array.astype(object), np.float32(1), np.array("x"), np.zeros((1, 1, 1))])
    if rng.random() < 0.2:
        del arrays[name]
    np.savez(file, **arrays)
    return f"{file.name} {name}"


def damage_run(rng: random.Random, folder: Path) -> str:
    """A run's folder after one or two accidents."""
    return "; ".join(_run_accident(rng, folder) for _ in range(rng.choice([1, 1, 2])))


def _run_accident(rng: random.Random, folder: Path) -> str:
    files = files_of(folder)
    papers = [file for file in files if file.suffix == ".json"]
    tables = [file for file in files if file.suffix == ".parquet" and "shards" not in file.parts]
    how = rng.choice(["paper", "paper", "table", "table", "file", "stray", "option"])
    try:
        if how == "paper" and papers:
            return rewrite(rng, rng.choice(papers))
        if how == "table" and tables:
            return _table(rng, rng.choice(tables))
    except (ValueError, pl.exceptions.PolarsError):  # damaged already
        how = "file"
    if how == "stray":
        return _stray(rng, folder)
    return damage_file(rng, rng.choice(files)) if files else "empty"


def _stray(rng: random.Random, folder: Path) -> str:
    """Something that no run has, or in a place that is a run's own."""
    names = ("shards/foo.parquet", "shards/000001.parquet", "notes.txt", "metrics.parquet", "shards", "figures")
    path = folder / rng.choice(
        [*names, "log.jsonl", "report.html", "stats.parquet", "shards/x/y", ".lock", "checksums.txt"]
    )
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if path.parent.exists() and not path.parent.is_dir():
        return "nothing"
    path.parent.mkdir(parents=True, exist_ok=True)
    if rng.random() < 0.5:
        path.mkdir()
    else:
        path.write_bytes(rng.choice([b"", b"x", b"PAR1" * 100]))
    return f"stray {path.relative_to(folder)}"


def _table(rng: random.Random, file: Path) -> str:
    """A table of another form under the same name."""
    table = pl.read_parquet(file, glob=False)
    column = rng.choice(table.columns)
    changes = {
        "dropped": lambda: table.drop(column),
        "null": lambda: table.with_columns(pl.lit(None).alias(column)),
        "as text": lambda: table.with_columns(pl.lit("x").alias(column)),
        "as lists": lambda: table.with_columns(pl.concat_list(pl.lit(1), pl.lit(2)).alias(column)),
        "infinite": lambda: table.with_columns(pl.lit(float("inf")).alias(column)),
        "no rows": lambda: table.clear(),
        "rows twice": lambda: pl.concat([table, table]),
        "renamed": lambda: table.rename({column: rng.choice(["x", "__proto__", "entropy_fact2"])}),
        "other numbers": lambda: table.with_columns(pl.lit(-(2**62)).alias(column)),
    }
    how = rng.choice(list(changes))
    metadata = {"schema_version": str(rng.choice([1, 1, 1, 99, "x", -1]))} if rng.random() < 0.5 else None
    changes[how]().write_parquet(file, metadata=metadata)
    return f"{file.name} {column} {how}"


def model(rng: random.Random, source: Path, target: Path) -> tuple[Path, str]:
    folder = copied(source, target)
    return folder, damage_model(rng, folder)
