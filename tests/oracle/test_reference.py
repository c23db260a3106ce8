"""The reference against hand computations, independent formulas and Hugging Face's own hidden states."""

import ast
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from bluffscope.errors import InputError, PairError
from bluffscope.host.float64_guard import computing_in
from bluffscope.host.noise import unit_noise
from bluffscope.records import Pair
from bluffscope.reference import analyses as reference
from bluffscope.reference import geometry as reference_geometry
from bluffscope.reference import model as reference_model
from bluffscope.reference.analyses import Counts, ReferenceOptions, analyse, analyse_pair
from bluffscope.reference.geometry import (
    angle,
    cosine,
    geometry,
    gini,
    jaccard,
    line_angle,
    magnitude_entropy,
    shape_class,
    top_features,
)

D_MODEL = 16
PAIR = Pair(0, "p0", "all", None, "The capital of France is", "Paris.", "Rome, é")
GEOMETRY = ("sphericity", "elongation", "dimensionality", "eigenvalue_entropy", "misalignment_angle")
LAYER_METRICS = ("l0_norm", "reconstruction_error", "relative_error", "gini", *GEOMETRY, "shape_class")


# --- the mathematics ------------------------------------------------------------------------------------------------


def octahedron(*lengths: float) -> np.ndarray:
    return np.concatenate([np.diag(lengths), -np.diag(lengths)])


def test_two_features_span_one_line():
    g = geometry(np.array([3.0, 1.0]), np.eye(3)[:2])
    assert g.centroid == pytest.approx([0.75, 0.25, 0])
    assert abs(g.axis) == pytest.approx([math.sqrt(0.5), math.sqrt(0.5), 0])
    assert (g.sphericity, g.elongation) == (None, None)
    assert g.dimensionality == pytest.approx(1)
    assert g.eigenvalue_entropy == pytest.approx(0, abs=1e-12)
    assert g.misalignment_angle == pytest.approx(math.degrees(math.acos(1 / math.sqrt(5))))


def test_an_octahedron_with_half_axes_3_2_1_has_eigenvalues_9_4_1():
    g = geometry(np.full(6, 0.2), octahedron(3.0, 2.0, 1.0) + [0, 5, 0])
    assert g.sphericity == pytest.approx(1 / 3)
    assert g.elongation == pytest.approx(2 / 3)
    assert g.dimensionality == pytest.approx(14**2 / (81 + 16 + 1))
    p = np.array([9, 4, 1]) / 14
    assert g.eigenvalue_entropy == pytest.approx(-(p * np.log(p)).sum())
    assert abs(g.axis) == pytest.approx([1, 0, 0])
    assert g.misalignment_angle == pytest.approx(90)


def test_below_four_features_what_is_undefined_is_none():
    square = np.array([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [1, 1, 1]])
    defined = [
        {name for name in ("centroid", "axis", *GEOMETRY) if getattr(g, name) is not None}
        for g in (geometry(np.ones(n), square[:n]) for n in range(5))
    ]
    two = {"centroid", "axis", "dimensionality", "eigenvalue_entropy", "misalignment_angle"}
    assert defined == [set(), {"centroid"}, two, two | {"elongation"}, two | {"elongation", "sphericity"}]


def test_repeated_directions_have_a_centroid_and_nothing_else():
    rng = np.random.default_rng(0)
    masses, direction = rng.random(7), rng.normal(size=20)
    g = geometry(masses, np.tile(direction, (7, 1)))
    assert g.centroid == pytest.approx(direction)
    assert [getattr(g, name) for name in ("axis", *GEOMETRY)] == [None] * 6
    spread = rng.normal(size=(7, 20)) * 1e-11
    assert geometry(masses, direction + spread).sphericity is not None


def test_no_axis_where_the_two_largest_eigenvalues_meet():
    shift = [0.0, 0, 9]
    tie = geometry(np.ones(6), octahedron(2.0, 2.0, 1.0) + shift)
    assert (tie.axis, tie.misalignment_angle) == (None, None)
    assert tie.elongation == pytest.approx(1)
    assert geometry(np.ones(6), octahedron(2.0, 2.0 * (1 - 4e-7), 1.0) + shift).axis is None
    assert geometry(np.ones(6), octahedron(2.0, 2.0 * (1 - 6e-7), 1.0) + shift).axis is not None


def test_no_misalignment_with_a_centroid_of_zero():
    g = geometry(np.ones(6), octahedron(3.0, 2.0, 1.0))
    assert g.axis is not None
    assert g.misalignment_angle is None


@settings(deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(2, 9), st.just(4)), elements=st.floats(-10, 10, width=16)),
    st.lists(st.sampled_from([1.0, 0.3, 1e-3, 1e-12]), min_size=9, max_size=9),
)
def test_geometry_agrees_with_the_singular_values_of_the_weighted_centred_rows(rows, masses):
    a = np.array(masses[: len(rows)])
    g = geometry(a, rows)
    w = a / a.sum()
    centred = rows - np.average(rows, axis=0, weights=a)
    values = np.linalg.svd(np.sqrt(w)[:, None] * centred, compute_uv=False)
    spectrum = np.zeros(4)
    spectrum[: len(values)] = values**2
    if spectrum[0] <= 1e-20 * (w @ (rows**2).sum(axis=1)):
        return  # at the border of "no spread", where rounding decides
    assert g.dimensionality == pytest.approx(np.trace(centred.T @ (w[:, None] * centred)) ** 2 / (spectrum**2).sum())
    if len(rows) >= 3:
        assert g.elongation == pytest.approx(math.sqrt(spectrum[1] / spectrum[0]), abs=1e-6)
    if len(rows) >= 4:
        assert g.sphericity == pytest.approx(math.sqrt(spectrum[2] / spectrum[0]), abs=1e-6)
    if spectrum[1] < 0.99 * spectrum[0]:
        inertia = centred.T @ (w[:, None] * centred)
        assert inertia @ g.axis == pytest.approx(spectrum[0] * g.axis, abs=1e-9 * spectrum[0])


def test_angles_are_exact_where_an_arccos_would_be_zero():
    u, v = np.array([1.0, 0.0]), np.array([1.0, 1e-10])
    assert angle(u, v) == pytest.approx(math.degrees(1e-10), rel=1e-6)
    assert line_angle(u, -v) == pytest.approx(math.degrees(1e-10), rel=1e-6)
    assert angle(u, 3 * u) == 0
    assert angle(u, -u) == pytest.approx(180)
    assert angle(np.array([1.0, 0]), np.array([1.0, math.sqrt(3)])) == pytest.approx(60)
    assert line_angle(np.array([1.0, 0]), np.array([-1.0, math.sqrt(3)])) == pytest.approx(60)
    assert [f(u, np.zeros(2)) for f in (angle, line_angle, cosine)] == [None] * 3
    assert cosine(np.array([3.0, 4.0]), np.array([4.0, 3.0])) == pytest.approx(24 / 25)


@pytest.mark.parametrize(("values", "expected"), [([], None), ([5.0], 0), ([2.0, 2, 2], 0), ([3.0, 1, 2], 2 / 9)])
def test_gini_of_a_few_numbers(values, expected):
    assert gini(np.array(values)) == (None if expected is None else pytest.approx(expected, abs=1e-15))


magnitudes = arrays(np.float64, st.integers(1, 60), elements=st.floats(1e-6, 1e6))


@given(magnitudes)
def test_gini_is_half_the_relative_mean_difference(v):
    assert gini(v) == pytest.approx(np.abs(v[:, None] - v).sum() / (2 * len(v) ** 2 * v.mean()), abs=1e-9)


@given(magnitudes)
def test_entropy_is_that_of_the_fifty_largest(v):
    top = np.sort(v)[-50:]
    expected = math.log(top.sum()) - (top * np.log(top)).sum() / top.sum()
    assert magnitude_entropy(v) == pytest.approx(expected, abs=1e-9)


def test_entropy_of_none_one_two_and_fifty_one_features():
    assert magnitude_entropy(np.array([])) is None
    assert magnitude_entropy(np.array([3.0])) == 0
    assert magnitude_entropy(np.array([1.0, 3.0])) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    assert magnitude_entropy(np.array([0.5] + [1.0] * 50)) == pytest.approx(math.log(50))


@pytest.mark.parametrize(
    ("elongation", "sphericity", "shape"),
    [
        (0.95, 0.91, "Spherical"),
        (0.9, 0.91, "Triaxial"),
        (0.95, 0.59, "Oblate"),
        (0.95, 0.6, "Triaxial"),
        (0.8, 0.1, "Triaxial"),
        (0.59, 0.5, "Prolate"),
        (0.6, 0.5, "Triaxial"),
        (None, 0.5, None),
        (0.5, None, None),
    ],
)
def test_shape_class_at_its_thresholds(elongation, sphericity, shape):
    assert shape_class(elongation, sphericity) == shape


def test_top_features_break_ties_by_the_lower_index():
    features = np.zeros(30)
    features[5:25] = 1.0
    features[29] = 2.0
    assert top_features(features) == {29, *range(5, 14)}
    assert top_features(np.zeros(3)) == frozenset()
    assert jaccard(frozenset({1, 2, 3}), frozenset({2, 3, 4})) == 0.5
    assert jaccard(frozenset(), frozenset({1})) is None


# --- tokens ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    """Byte-level BPE: every byte, and the merges "i"+"s" and "is"+"n" (one that crosses a border)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<bos>", *alphabet, "is", "isn"]
    core = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [("i", "s"), ("is", "n")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<bos>")


def tokenise(tokenizer, prompt, fact, **options):
    pair = Pair(0, "p", "all", None, prompt, fact, "x")
    return reference.tokenise(pair, tokenizer, ReferenceOptions(layers=(0,), **options))


def test_one_bos_is_fed_and_never_read_or_counted(tokenizer):
    texts = tokenise(tokenizer, "ab", "c", join="")
    assert [len(texts[v].ids) for v in ("prompt", "fact")] == [3, 4]
    assert [texts[v].ids.count(tokenizer.bos_token_id) for v in texts] == [1, 1, 1]
    assert [texts[v].reads for v in texts] == [[2], [3], [3]]
    assert [texts[v].tokens for v in texts] == [2, 1, 1]
    assert [texts[v].read_token for v in texts] == ["b", "c", "x"]
    assert tokenise(tokenizer, "ab", "c", prepend_bos=False)["prompt"].ids == texts["prompt"].ids[1:]


def test_text_that_looks_like_a_special_token_stays_text(tokenizer):
    assert tokenise(tokenizer, "a<bos>", "c")["prompt"].tokens == 6


def test_a_merge_across_the_border_shortens_the_shared_prefix(tokenizer):
    fact = tokenise(tokenizer, "it is", "nt", join="", position="completion-mean")["fact"]
    assert tokenizer.convert_ids_to_tokens(fact.ids) == ["<bos>", "i", "t", "Ġ", "isn", "t"]
    assert (fact.tokens, fact.reads) == (2, [4, 5])


def test_half_a_character_is_shown_as_the_vocabulary_writes_it(tokenizer):
    assert tokenise(tokenizer, "a", "é")["fact"].read_token == "©"


def test_texts_without_a_token_to_read_are_refused_by_pair(tokenizer):
    with pytest.raises(PairError, match="pair p: the prompt text has no tokens"):
        tokenise(tokenizer, "", "a")
    with pytest.raises(PairError, match="fact completion adds no token"):
        tokenise(tokenizer, "a", "", join="", position="completion-mean")


# --- whole rows -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sae_lens():
    with warnings.catch_warnings():  # it imports transformer_lens by a name that is going away
        warnings.filterwarnings("ignore", message="The 'utils' module has been deprecated", category=DeprecationWarning)
        import sae_lens
    return sae_lens


def make_model(kind: str, **changes):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 300,
        "hidden_size": D_MODEL,
        "intermediate_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "initializer_range": 0.5,
    }
    config = transformers.AutoConfig.for_model(kind, **(sizes | changes))
    return transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float64, attn_implementation="eager"
    ).eval()


def make_sae(sae_lens, hook_name: str, *, d_sae=64, jump=True, seed=0):
    torch.manual_seed(seed)
    kind, config = (
        (sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig)
        if jump
        else (sae_lens.StandardSAE, sae_lens.StandardSAEConfig)
    )
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name=hook_name)
    sae = kind(config(d_in=D_MODEL, d_sae=d_sae, dtype="float64", apply_b_dec_to_input=not jump, metadata=metadata))
    with torch.no_grad(), computing_in(torch.float64):
        sae.b_dec.normal_()
        sae.b_enc.normal_()
        if jump:
            sae.threshold.fill_(0.7)
    return sae


@pytest.fixture(scope="module")
def saes(sae_lens):
    kinds = {0: True, 1: False, 3: True}
    return {k: make_sae(sae_lens, f"blocks.{k}.hook_resid_post", jump=jump, seed=k) for k, jump in kinds.items()}


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def model(request):
    return make_model(request.param)


@pytest.fixture(scope="module")
def llama():
    return make_model("llama")


def test_a_row_has_every_column_in_order_and_counts_the_work_of_the_sequential_pattern(model, tokenizer, saes):
    options = ReferenceOptions(layers=(0, 1, 3), noise_sweep=(0.0, 0.03, 1.0))
    counts = Counts()
    row = analyse_pair(PAIR, model, tokenizer, saes, options, counts)
    others = ["centroid_drift", "axis_twist", "stability", "stability_s0", "stability_s0.03", "stability_s1", "entropy"]
    others += ["cross_layer_consistency", "cross_layer_alignment"]
    assert list(row) == [
        "pair_id",
        *(f"{view}_tokens" for view in ("prompt", "fact", "hall")),
        *(f"{view}_read_token" for view in ("prompt", "fact", "hall")),
        *(f"l{k}_{view}_{name}" for k in (0, 1, 3) for view in ("prompt", "fact", "hall") for name in LAYER_METRICS),
        *(f"{name}_{side}" for name in others for side in ("fact", "hall", "diff")),
    ]
    shapes = {name for name in row if name.endswith("shape_class")}
    assert {type(row[name]) for name in list(row)[7:] if name not in shapes} == {float}
    assert {type(row[name]) for name in shapes} == {str}
    assert row["stability_s0_fact"] == row["stability_s0_hall"] == 1
    assert row["entropy_diff"] == row["entropy_hall"] - row["entropy_fact"]
    noise = 4 * 2 * options.noise_draws
    assert counts == Counts(forwards=13, encodes=3 + 6 + 2 + 2 + 4 + noise, eigendecompositions=9)


def by_hand(model, tokenizer, sae, text: str, layer: int):
    """Residual, features and reconstruction at the last token, from hidden states and the SAE's weights."""
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad(), computing_in(torch.float64):
        x = model(input_ids=ids, output_hidden_states=True).hidden_states[layer + 1][0, -1]
        jump = hasattr(sae, "threshold")
        pre = (x if jump else x - sae.b_dec) @ sae.W_enc + sae.b_enc
        a = torch.where(pre > (sae.threshold if jump else 0), pre, 0)
        return x.numpy(), a.numpy(), (a @ sae.W_dec + sae.b_dec).numpy()


def test_the_metrics_are_those_of_the_model_s_own_hidden_states(model, tokenizer, saes):
    row = analyse_pair(PAIR, model, tokenizer, saes, ReferenceOptions(layers=(1, 0), noise_draws=3))
    views = {"prompt": PAIR.prompt, "fact": PAIR.prompt + " Paris.", "hall": PAIR.prompt + " Rome, é"}
    read = {(k, v): by_hand(model, tokenizer, saes[k], text, k) for k in (0, 1) for v, text in views.items()}
    for (layer, view), (x, a, y) in read.items():
        assert row[f"l{layer}_{view}_l0_norm"] == np.count_nonzero(a)
        assert row[f"l{layer}_{view}_reconstruction_error"] == pytest.approx(np.linalg.norm(x - y))
        assert row[f"l{layer}_{view}_relative_error"] == pytest.approx(((x - y) ** 2).sum() / (x**2).sum())
        decoder = saes[layer].W_dec.detach().numpy()
        spectrum = np.linalg.eigvalsh(np.cov(decoder.T, aweights=a, ddof=0))
        assert row[f"l{layer}_{view}_dimensionality"] == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum())
    decoder = saes[1].W_dec.detach().numpy()
    axes = {v: np.linalg.eigh(np.cov(decoder.T, aweights=read[1, v][1], ddof=0))[1][:, -1] for v in views}
    for view in ("fact", "hall"):
        twist = math.acos(abs(axes[view] @ axes["prompt"]))
        assert row[f"axis_twist_{view}"] == pytest.approx(math.degrees(twist))
        c, origin = read[1, view][1] @ decoder, read[1, "prompt"][1] @ decoder
        drift = math.acos(c @ origin / np.linalg.norm(c) / np.linalg.norm(origin))
        assert row[f"centroid_drift_{view}"] == pytest.approx(math.degrees(drift))
        for name, part in (("consistency", 1), ("alignment", 2)):
            u, v = read[1, view][part], read[0, view][part]
            assert row[f"cross_layer_{name}_{view}"] == pytest.approx(u @ v / np.linalg.norm(u) / np.linalg.norm(v))


@pytest.mark.parametrize(("mode", "std"), [("absolute", 8.0), ("relative", 0.5)])
@pytest.mark.parametrize("position", ["last", "completion-mean"])
def test_stability_is_the_mean_overlap_under_the_seeded_noise(llama, tokenizer, saes, mode, std, position):
    how = {"noise_std": std, "noise_mode": mode, "noise_draws": 3, "seed": 7, "position": position}
    row = analyse_pair(PAIR, llama, tokenizer, saes, ReferenceOptions(layers=(3,), **how))
    for view, text in (("fact", " Paris."), ("hall", " Rome, é")):
        ids = [tokenizer.bos_token_id, *tokenizer(PAIR.prompt + text, add_special_tokens=False)["input_ids"]]
        caught = []
        handle = llama.model.layers[3].register_forward_hook(lambda _m, _a, out, to=caught: to.append(out[0]))
        with torch.no_grad(), computing_in(torch.float64):
            llama(input_ids=torch.tensor([ids]))
        handle.remove()
        start = 1 + len(tokenizer(PAIR.prompt)["input_ids"])  # nothing merges across this border
        reads = caught[0][start:] if position == "completion-mean" else caught[0][-1:]
        overlaps = []
        for draw in range(3):
            noise = torch.from_numpy(unit_noise(7, "p0", view, 3, draw, tokens=len(reads), d_model=D_MODEL))
            for x, e in zip(reads, noise, strict=True):
                s = std * (float(x.square().mean().sqrt()) if mode == "relative" else 1)
                tops = [saes[3].encode(z).topk(10) for z in (x, x + s * e)]
                before, after = ({int(i) for a, i in zip(*top, strict=True) if a > 0} for top in tops)
                overlaps.append(len(before & after) / len(before | after))
        assert row[f"stability_{view}"] == pytest.approx(np.mean(overlaps))
        assert row[f"stability_{view}"] < 1


def test_completion_mean_averages_last_reads_of_every_prefix_of_the_completion(llama, tokenizer, saes):
    options = {"layers": (0, 3), "join": "", "noise_draws": 1}
    pair = Pair(0, "p", "all", None, "A b", "cde", "fg")
    counts = Counts()
    row = analyse_pair(pair, llama, tokenizer, saes, ReferenceOptions(position="completion-mean", **options), counts)
    for side, text in (("fact", "cde"), ("hall", "fg")):
        prefixes = [Pair(0, "p", "all", None, "A b", text[: i + 1], text[: i + 1]) for i in range(len(text))]
        rows = analyse(prefixes, llama, tokenizer, saes, ReferenceOptions(**options))
        names = [f"l{k}_{side}_{name}" for k in (0, 3) for name in LAYER_METRICS[:-1]]
        names += [f"{name}_{side}" for name in ("centroid_drift", "axis_twist", "entropy", "cross_layer_alignment")]
        for name in names:
            assert row[name] == pytest.approx(np.mean([r[name] for r in rows])), name
        elongation, sphericity = row[f"l0_{side}_elongation"], row[f"l0_{side}_sphericity"]
        assert row[f"l0_{side}_shape_class"] == shape_class(elongation, sphericity)
    assert row["hall_read_token"] == "g"
    assert counts.eigendecompositions == 2 * (1 + 3 + 2)


def test_the_residual_is_cast_to_the_sae_s_precision_and_metrics_stay_float64(tokenizer, saes, sae_lens):
    half = make_model("llama").to(torch.bfloat16)
    subject = reference.prepare(PAIR, half, tokenizer, saes, ReferenceOptions(layers=(0,)))
    reading = subject.read("fact", [0])[0]
    assert (reading.x.dtype, reading.a.dtype, reading.y.dtype) == (torch.float64, np.float64, np.float64)
    assert torch.equal(reading.x, reading.x.to(torch.bfloat16).double())
    single = make_sae(sae_lens, "blocks.0.hook_resid_post").to(torch.float32)
    subject = reference.prepare(PAIR, half, tokenizer, {0: single}, ReferenceOptions(layers=(0,)))
    assert subject.read("fact", [0])[0].x.dtype == torch.float32


def test_silent_features_leave_the_errors_and_nulls(llama, tokenizer, sae_lens):
    sae = make_sae(sae_lens, "blocks.1.hook_resid_post")
    with torch.no_grad(), computing_in(torch.float64):
        sae.threshold.fill_(1e9)
    row = analyse_pair(PAIR, llama, tokenizer, {1: sae}, ReferenceOptions(layers=(1,)))
    defined = {name for name in list(row)[7:] if row[name] is not None}
    kept = ("l0_norm", "reconstruction_error", "relative_error")
    assert defined == {f"l1_{view}_{name}" for view in ("prompt", "fact", "hall") for name in kept}
    assert row["l1_fact_l0_norm"] == 0


def test_cross_layer_takes_the_middle_and_the_last_layer_and_needs_two(llama, tokenizer, saes, sae_lens):
    counts = Counts()
    row = analyse_pair(PAIR, llama, tokenizer, saes, ReferenceOptions(layers=(1,)), counts)
    assert {row[f"cross_layer_{name}_diff"] for name in ("consistency", "alignment")} == {None}
    assert counts.forwards == 7
    three = analyse_pair(PAIR, llama, tokenizer, saes, ReferenceOptions(layers=(0, 1, 3)))
    two = analyse_pair(PAIR, llama, tokenizer, saes, ReferenceOptions(layers=(1, 3)))
    assert three["cross_layer_alignment_fact"] == two["cross_layer_alignment_fact"]
    assert three["cross_layer_consistency_hall"] == two["cross_layer_consistency_hall"]
    wide = saes | {3: make_sae(sae_lens, "blocks.3.hook_resid_post", d_sae=80)}
    row = analyse_pair(PAIR, llama, tokenizer, wide, ReferenceOptions(layers=(0, 3)))
    assert row["cross_layer_consistency_fact"] is None
    assert -1 < row["cross_layer_alignment_fact"] < 1


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2", "gpt_neox"])
def test_the_sublayers_and_the_block_s_input_add_up_to_its_output(kind, tokenizer, sae_lens):
    small = {"n_embd": D_MODEL, "n_layer": 4, "n_head": 2, "n_positions": 128} if kind == "gpt2" else {}
    network = make_model(kind, **small)
    points = {"resid_pre": 2, "attn_out": 2, "mlp_out": 2, "resid_post": 2, "resid_pre_next": 3}
    heads = {
        i: make_sae(sae_lens, f"blocks.{k}.hook_{p.removesuffix('_next')}") for i, (p, k) in enumerate(points.items())
    }
    subject = reference.prepare(PAIR, network, tokenizer, heads, ReferenceOptions(layers=tuple(heads)))
    pre, attention, mlp, post, following = (subject.read("fact", [i])[i].x[0] for i in heads)
    torch.testing.assert_close(pre + attention + mlp, post)
    torch.testing.assert_close(post, following)


def test_each_analysis_alone_gives_the_columns_of_the_whole(llama, tokenizer, saes):
    options = ReferenceOptions(layers=(0, 1, 3), noise_draws=2)
    row = analyse_pair(PAIR, llama, tokenizer, saes, options)
    steps = (
        reference.layer_sensitivity,
        reference.semantic_misalignment,
        reference.stability,
        reference.entropy,
        reference.cross_layer,
    )
    alone = {}
    for step in steps:
        alone |= step(reference.prepare(PAIR, llama, tokenizer, saes, options))
    assert alone == {name: row[name] for name in list(row)[7:]}


def test_what_does_not_fit_together_is_refused_in_one_line(llama, tokenizer, saes, sae_lens):
    def run(layers=(0,), given=saes, pair=PAIR):
        return analyse_pair(pair, llama, tokenizer, given, ReferenceOptions(layers=layers))

    for layers, message in (((), "one or more"), ((0, 0), "distinct"), ((2,), "layer 2: no SAE")):
        with pytest.raises(InputError, match=message):
            run(layers)
    for hook_name, message in (("blocks.0.attn.hook_q", "not known"), ("blocks.4.hook_resid_post", "4 blocks")):
        with pytest.raises(InputError, match=message):
            run(given={0: make_sae(sae_lens, hook_name)})
    with pytest.raises(InputError, match="bfloat16"):
        run(given={0: make_sae(sae_lens, "blocks.0.hook_resid_post").to(torch.bfloat16)})
    with pytest.raises(PairError, match="pair long: 20. tokens are more than the model's context of 128"):
        run(pair=Pair(0, "long", "all", None, "a" * 200, "b", "c"))
    llama.train()
    try:
        with pytest.raises(InputError, match="training mode"):
            run()
    finally:
        llama.eval()


def test_the_reference_shares_no_code_with_the_engine():
    allowed = {"errors", "host", "records", "config", "reference"}
    for module in (reference, reference_geometry, reference_model):
        found = set()
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        inside = {name.split(".")[1] for name in found if name.startswith("bluffscope.")}
        assert inside <= allowed
        assert "importlib" not in found
