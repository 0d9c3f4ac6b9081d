"""What the recogniser understands, and what it refuses to have understood."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from voices import needs_voice

from benchmarks.speech import measure, noisy, same_request, say, utterances
from lisa_ros.errors import CheckpointError
from lisa_ros.speech.recognizer import (
    LANGUAGE,
    PRONUNCIATIONS,
    RecognizerError,
    SentenceRecognizer,
    load_recognizer,
    phrase_dictionary,
)
from lisa_tabletop.language.spoken import in_phrases, spoken_words, written_model

OUTSIDE = (
    "The train to London leaves at half past nine.",
    "My brother has moved to another city.",
    "What is the capital of Australia?",
    "She broke her leg while skiing in Austria.",
    "Nobody knows who started the rumour.",
)


@pytest.fixture(scope="module")
def recognizer() -> SentenceRecognizer:
    return SentenceRecognizer()


def test_the_shipped_language_is_what_the_tabletop_says() -> None:
    assert gzip.decompress(LANGUAGE.read_bytes()) == gzip.decompress(written_model()), (
        "run: python -m lisa_tabletop.language.spoken"
    )


def test_phrases_are_what_stands_between_slots_and_stops() -> None:
    assert in_phrases("Can you find {np}, please?") == "can_you_find {np}, please?"
    assert in_phrases("I'm thirsty. What now?") == "i'm_thirsty. what_now?"
    assert spoken_words("i'm_thirsty. A café-table?") == ["i'm_thirsty", "a", "cafe", "table"]


def test_a_phrase_is_said_as_its_words_are() -> None:
    dictionary = "the DH AH\nthe(2) DH IY\nmug M AH G\n"
    lines = phrase_dictionary(["the_mug"], dictionary).splitlines()
    assert lines == ["the_mug DH AH M AH G", "the_mug(2) DH IY M AH G"]
    with pytest.raises(RecognizerError, match=f"'mugg'.*{PRONUNCIATIONS.name}"):
        phrase_dictionary(["the_mugg"], dictionary)


def test_the_same_request_in_other_words() -> None:
    assert same_request("Show me the red mug.", "find the red mug")
    assert not same_request("Show me the red mug.", "show me the blue mug")
    assert not same_request("the mug left of the book", "the mug right of the book")
    assert same_request("Could you find something to drink from?", "find something to drink from")


@needs_voice
def test_sentences_are_understood_and_others_asked_again(recognizer: SentenceRecognizer) -> None:
    spoken = utterances(12, 5, ("en-us", "en-us+f3"), OUTSIDE)
    right = wrong = refused = 0
    for one in spoken:
        heard = recognizer.recognise(one.samples, one.rate)
        good = same_request(one.text, heard.text)
        right += one.inside and heard.sure and good
        wrong += one.inside and heard.sure and not good
        refused += not one.inside and not heard.sure
    assert right >= 8 and wrong <= 1, (right, wrong)
    assert refused >= len(OUTSIDE) - 1
    in_noise = [recognizer.recognise(noisy(one, 10, 1).samples, one.rate) for one in spoken[:6]]
    pairs = zip(spoken, in_noise, strict=False)
    assert sum(heard.sure and not same_request(one.text, heard.text) for one, heard in pairs) <= 1


@needs_voice
def test_one_recording_gives_one_answer(recognizer: SentenceRecognizer) -> None:
    samples, rate = say("Find the red mug.", "en-us", 150)
    first = recognizer.recognise(samples, rate)
    assert first.text == "find the red mug" and first.sure
    assert recognizer.recognise(samples, rate) == first
    assert recognizer.recognise(samples / 8, rate).text == first.text, "spoken softly"


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_no_voice_is_no_instruction(recognizer: SentenceRecognizer, rate: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * rate).astype("f4")
    for sound in (noise, np.zeros(rate, "f4"), np.zeros(0, "f4"), noise[:100]):
        assert not recognizer.recognise(sound, rate).sure


def test_a_folder_that_is_no_speech_model_is_one_sentence(tmp_path) -> None:
    with pytest.raises(RecognizerError, match="no folder of a speech model"):
        load_recognizer(str(tmp_path / "none"))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(RecognizerError, match="cannot be loaded as a speech model"):
        load_recognizer(str(tmp_path))


def tiny_whisper(folder: Path) -> None:
    """A Whisper that knows letters and nothing else, with weights that mean nothing."""
    import torch
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    end, start, none = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"
    special = [end, start, "<|en|>", "<|transcribe|>", "<|startofprev|>", none]
    ids = {token: number for number, token in enumerate([*sorted(ByteLevel.alphabet()), *special])}
    tokenizer = transformers.WhisperTokenizer(
        vocab=ids, merges=[], additional_special_tokens=special[1:]
    )
    turns = {"eos_token_id": ids[end], "pad_token_id": ids[end], "bos_token_id": ids[end]}
    turns |= {"decoder_start_token_id": ids[start]}
    layers = {"layers": 1, "attention_heads": 2, "ffn_dim": 64}
    sizes = {f"{half}_{key}": n for half in ("encoder", "decoder") for key, n in layers.items()}
    lengths = {"max_source_positions": 500, "max_target_positions": 32}
    torch.manual_seed(0)
    network = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(vocab_size=len(ids), d_model=32, **sizes, **lengths, **turns)
    )
    network.generation_config = transformers.GenerationConfig(
        **turns, max_length=16, no_timestamps_token_id=ids[none], is_multilingual=False
    )
    network.save_pretrained(folder)
    hears = transformers.WhisperFeatureExtractor(chunk_length=10)
    transformers.WhisperProcessor(hears, tokenizer).save_pretrained(folder)


@needs_voice
def test_a_whisper_is_heard_from_a_folder_and_from_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_whisper(tmp_path / "tiny")
    recognizer = load_recognizer(str(tmp_path / "tiny"))
    heard = recognizer.recognise(*say("Find the red mug.", "en-us", 150))
    assert len(heard.text) > 3 and heard.sure
    assert not recognizer.recognise(np.zeros(16_000, "f4"), 16_000).sure
    rows = list(measure(recognizer, 2))
    assert [row["utterances"] for row in rows] == [
        "clean (2)",
        "white noise, 10 dB (2)",
        "outside (1)",
    ]
    assert all(row["wrong"] == "1.000" for row in rows), "its weights mean nothing"

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="lisa-ros fetch somebody/tiny"):
        load_recognizer("somebody/tiny")
    cached, commit = tmp_path / "models--somebody--tiny", 40 * "0"
    (cached / "snapshots").mkdir(parents=True)
    shutil.move(tmp_path / "tiny", cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    again = load_recognizer("somebody/tiny")
    assert again.recognise(*say("Find the red mug.", "en-us", 150)) == heard
