"""The byte-level BPE vocabulary, learnt on the training part, in GPT-2's splitting (llama.cpp's `gpt-2`)."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pocket.corpora import DOMAINS, texts

BEGIN, END, UNKNOWN = "<bos>", "<eos>", "<unk>"
CONTROL = (BEGIN, END, UNKNOWN)


def learn_vocabulary(split: Path, size: int) -> Tokenizer:
    """`size` entries with the control tokens first and all 256 bytes after them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for domain in DOMAINS for text in texts(split, "train", domain)), trainer)
    return tokenizer
