"""A BERT of two layers in a GGUF of a few hundred kilobytes, and what it computes written out in numpy.

Its vocabulary has the printable ASCII characters, each as the beginning of a word and as what follows in one, so that
any such text can be tokenised by hand.
"""

import string
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = string.ascii_lowercase + string.digits
PUNCTUATION = ".,?!"
PIECES = (*SPECIAL, *(f"\u2581{letter}" for letter in LETTERS + PUNCTUATION), *LETTERS)
CLS, SEP = 2, 3
WIDTH, HEADS, MLP_WIDTH, LAYERS = 32, 2, 64, 2
EPSILON = 1e-12

Weights = dict[str, NDArray[np.float32]]


def write_pico_bert(
    path: Path, *, pooling: gguf.PoolingType | None = gguf.PoolingType.MEAN, context_tokens: int = 256, seed: int = 5
) -> Path:
    """Write an encoder with seeded random weights; returns `path`."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("pico-bert")
    writer.add_block_count(LAYERS)
    writer.add_context_length(context_tokens)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MLP_WIDTH)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    _write_word_pieces(writer)
    for name, values in bert_weights(context_tokens=context_tokens, seed=seed).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_word_pieces(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(PIECES))
    is_special = [gguf.TokenType.CONTROL] * len(SPECIAL)
    writer.add_token_types(is_special + [gguf.TokenType.NORMAL] * (len(PIECES) - len(SPECIAL)))
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(CLS)
    writer.add_sep_token_id(SEP)
    writer.add_mask_token_id(4)


def bert_weights(*, context_tokens: int = 256, seed: int = 5) -> Weights:
    """Every tensor by its name, in numpy's order of axes."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[-1]), dtype=np.float32)

    def norm(name: str) -> Weights:
        return {f"{name}.weight": 1 + normal(WIDTH), f"{name}.bias": normal(WIDTH)}

    weights = {
        "token_embd.weight": normal(len(PIECES), WIDTH),
        "position_embd.weight": normal(context_tokens, WIDTH),
        "token_types.weight": normal(2, WIDTH),
        **norm("token_embd_norm"),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights |= {f"{block}{name}.weight": normal(WIDTH, WIDTH), f"{block}{name}.bias": normal(WIDTH)}
        weights |= norm(f"{block}attn_output_norm") | norm(f"{block}layer_output_norm")
        weights |= {f"{block}ffn_up.weight": normal(MLP_WIDTH, WIDTH), f"{block}ffn_up.bias": normal(MLP_WIDTH)}
        weights |= {f"{block}ffn_down.weight": normal(WIDTH, MLP_WIDTH), f"{block}ffn_down.bias": normal(WIDTH)}
    return weights


def pieces_of(text: str) -> list[int]:
    """The tokens of lower-case words and punctuation between blanks, [CLS] and [SEP] included."""
    tokens = [CLS]
    for word in text.split():
        tokens.append(PIECES.index(f"\u2581{word[0]}"))
        tokens += [len(PIECES) - len(LETTERS) + LETTERS.index(letter) for letter in word[1:]]
    return [*tokens, SEP]


def mean_vector(tokens: list[int], weights: Weights) -> NDArray[np.float32]:
    """What BERT makes of the tokens, averaged and made a unit, without any hurry (Devlin et al. 2018)."""
    hidden = weights["token_embd.weight"][tokens] + weights["position_embd.weight"][: len(tokens)]
    hidden = _norm(hidden + weights["token_types.weight"][0], weights, "token_embd_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        hidden = _norm(hidden + _attention(hidden, weights, block), weights, f"{block}attn_output_norm")
        up = _gelu(_linear(hidden, weights, f"{block}ffn_up"))
        hidden = _norm(hidden + _linear(up, weights, f"{block}ffn_down"), weights, f"{block}layer_output_norm")
    mean = hidden.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)


def _attention(hidden: NDArray[np.float32], weights: Weights, block: str) -> NDArray[np.float32]:
    queries, keys, values = (
        _linear(hidden, weights, f"{block}attn_{kind}").reshape(len(hidden), HEADS, -1) for kind in "qkv"
    )
    scores = np.einsum("qhd,khd->hqk", queries, keys) / np.sqrt(WIDTH // HEADS)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    mixed = np.einsum("hqk,khd->qhd", shares, values).reshape(len(hidden), WIDTH)
    return _linear(mixed, weights, f"{block}attn_output")


def _linear(values: NDArray[np.float32], weights: Weights, name: str) -> NDArray[np.float32]:
    return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(values: NDArray[np.float32], weights: Weights, name: str) -> NDArray[np.float32]:
    centred = values - values.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt(centred.var(axis=-1, keepdims=True) + EPSILON)
    return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"], dtype=np.float32)


def _gelu(values: NDArray[np.float32]) -> NDArray[np.float32]:
    cubic = np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)
    return np.asarray(0.5 * values * (1 + np.tanh(cubic)), dtype=np.float32)
