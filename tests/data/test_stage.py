"""The data stage as launch runs it, on a folder of small texts, with its results counted anew from the files."""

import hashlib
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ropewalk.conf import manifest
from ropewalk.conf.errors import ConfigError, DataError, ProofError
from ropewalk.conf.schema import Config
from ropewalk.data import stage, store
from ropewalk.data.dataset import DataFolders
from ropewalk.data.entries import prove
from ropewalk.data.ledger import summary
from ropewalk.data.pages import pages
from ropewalk.launch.compose import compose

RECIPE = """\
# @package _global_
defaults: [{override /rope: none}]
name: tiny
model:
  scratch: {vocab_size: 300, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
            num_key_value_heads: 1, max_position_embeddings: 64}
data: {seq_len: 64, heldout: 0.2, min_piece: 8, max_epochs: 20}
train: {steps: 1, lr: 1.0e-3}
"""
WORDS = ["rope", "walk", "yarn", "lay", "twist", "strand"]


class Place:
    """A folder with a recipe, two sources, and a run of the stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "conf" / "recipe").mkdir(parents=True)
        (folder / "conf" / "recipe" / "tiny.yaml").write_text(RECIPE)
        self.texts("books", 30, 5, 120)
        self.texts("notes", 20, 1, 40)

    def texts(self, name: str, count: int, low: int, high: int) -> None:
        rng = random.Random(name)
        (self.folder / name).mkdir()
        for i in range(count):
            words = [rng.choice(WORDS) for _ in range(rng.randint(low, high))]
            (self.folder / name / f"{i:02}.txt").write_text(" ".join(words))

    def config(self, *words: str, sources: tuple[str, ...] = ("books", "notes"), cache: str = "cache") -> Config:
        paths = [f"data.sources.{s}.path={self.folder / s}" for s in sources]
        conf = f"hydra.searchpath=[file://{self.folder / 'conf'}]"
        return compose(["recipe=tiny", conf, f"cache_dir={self.folder / cache}", *paths, *words])

    def run(self, *words: str, output: str = "out", cache: str = "cache", **kwargs: Any) -> "Ran":
        config = self.config(*words, cache=cache, **kwargs)
        run_dir = self.folder / output
        run_dir.mkdir(exist_ok=True)
        _, said = stage.run(config, stage.Inputs(None), run_dir / "data")
        return Ran(run_dir, self.folder / cache, said)


class Ran:
    def __init__(self, run_dir: Path, cache: Path, said: str) -> None:
        self.said = said
        self.ledger = json.loads((run_dir / "data" / "ledger.json").read_text())
        self.folders = DataFolders.of(run_dir, cache)

    def pieces(self) -> list[list[dict[str, int]]]:
        table = pa.ipc.open_file(pa.memory_map(str(self.folders.plan / "plan.arrow"))).read_all()
        return table["pieces"].to_pylist()

    def by_source(self) -> dict[str, list[tuple[int, int, int]]]:
        """Pieces `(document in the source, start, length)`, by the order of the stores."""
        first, found = 0, {}
        for name in self.folders.stores:
            count = len(self.folders.store(name).length)
            mine = [p for row in self.pieces() for p in row if first <= p["document"] < first + count]
            found[name] = [(p["document"] - first, p["start"], p["length"]) for p in mine]
            first += count
        return found


SYNTHETIC = (
    "data.sources.books.weight=0.5",
    "data.sources.again.kind=repeat",
    "data.sources.again.filler=books",
    "data.sources.again.weight=0.5",
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_training_token_stands_in_the_plan_once_and_no_held_out_one(place: Place) -> None:
    ran = place.run()
    for name, pieces in ran.by_source().items():
        opened = ran.folders.store(name)
        seen = Counter((d, t) for d, start, length in pieces for t in range(start, start + length))
        train = np.flatnonzero(~opened.heldout).tolist()
        assert seen == Counter((d, t) for d in train for t in range(int(opened.length[d])))
        assert opened.heldout.any()


def test_sequences_hold_the_text_of_the_files(place: Place) -> None:
    """Through the store, the plan and the tokenizer back to the words on disk."""
    from transformers import AutoTokenizer

    ran = place.run()
    tokenizer = AutoTokenizer.from_pretrained(str(ran.folders.tokenizer))
    all_text = [p.read_text() for s in ("books", "notes") for p in (place.folder / s).iterdir()]
    sequences = ran.folders.sequences()
    for number in range(len(sequences)):
        row = sequences[number]
        for low, high, piece in zip(row.cu_seqlens, row.cu_seqlens[1:], ran.pieces()[number], strict=False):
            assert high - low == piece["length"]
            assert any(tokenizer.decode(row.input_ids[low:high]) in text for text in all_text)


def test_ledger_adds_up_and_equals_a_recount(place: Place) -> None:
    ran = place.run()
    plan, sources = ran.ledger["plan"], ran.ledger["sources"]
    assert sum(s["tokens_in_plan"] for s in sources.values()) == plan["tokens"]
    assert sum(s["share_in_plan"] for s in sources.values()) == pytest.approx(1, abs=1e-5)
    for name, pieces in ran.by_source().items():
        assert sources[name]["tokens_in_plan"] == sum(length for _, _, length in pieces)
    rows = ran.pieces()
    assert (plan["sequences"], plan["pieces"]) == (len(rows), sum(map(len, rows)))
    assert plan["tokens"] == sum(p["length"] for row in rows for p in row)
    assert plan["tokens"] + plan["padding"] == 64 * len(rows)
    assert sum(plan["piece_lengths"].values()) == plan["pieces"]


def test_ledger_counts_what_lies_on_disk(place: Place) -> None:
    (place.folder / "notes" / "98.txt").write_bytes(b"caf\xe9")
    (place.folder / "notes" / "99.txt").write_text("  ")
    notes = place.run().ledger["sources"]["notes"]
    held = sum(store.is_heldout(f"{i:02}.txt", 0.2) for i in range(20))
    assert notes["refused"] == {"empty": 1, "not UTF-8": 1}
    assert (notes["documents"], notes["heldout_documents"], notes["epochs"], notes["cut"]) == (20, held, 1.0, 0)


def test_two_sequence_lengths_share_one_token_store(place: Place) -> None:
    short = place.run(output="short")
    before = {p: p.stat().st_mtime_ns for p in (place.folder / "cache").rglob("tokens.bin")}
    long = place.run("data.seq_len=128", output="long")
    after = {p: p.stat().st_mtime_ns for p in (place.folder / "cache").rglob("tokens.bin")}
    assert len(before) == 2 and before == after
    assert short.folders.stores == long.folders.stores and short.folders.plan != long.folders.plan
    assert (short.ledger["plan"]["tokens"], long.ledger["plan"]["seq_len"]) == (long.ledger["plan"]["tokens"], 128)


def test_second_run_skips(place: Place) -> None:
    place.run()
    assert place.run().said == "data: done before with the same settings and inputs; skipped"


def test_changed_file_is_read_again(place: Place) -> None:
    before = place.run().ledger["sources"]["notes"]["tokens"]
    (place.folder / "notes" / "00.txt").write_text("rope " * 500)
    again = place.run()
    assert "redone" in again.said
    assert again.ledger["sources"]["notes"]["tokens"] > before


def content_of(cache: Path) -> dict[str, str]:
    """Hashes of all files but the seconds in a manifest."""
    return {
        p.relative_to(cache).as_posix(): hashlib.sha256(
            re.sub(rb'"seconds": [0-9.]+', b"", p.read_bytes()) if p.name == "manifest.json" else p.read_bytes()
        ).hexdigest()
        for p in sorted(cache.rglob("*"))
        if p.is_file() and p.suffix != ".lock"
    }


def test_second_cache_gets_the_same_bytes(place: Place) -> None:
    place.run(*SYNTHETIC, sources=("books",))
    place.run(*SYNTHETIC, sources=("books",), cache="other", output="again")
    one, two = content_of(place.folder / "cache"), content_of(place.folder / "other")
    assert len([name for name in one if name.endswith((".bin", ".arrow"))]) == 7
    assert one == two


def test_order_of_the_sources_in_the_settings_does_not_mix_up_their_texts(place: Place) -> None:
    """The same cache serves both; each sequence must read from the store its plan was made for."""
    from transformers import AutoTokenizer

    for output, sources in (("one", ("books", "notes")), ("two", ("notes", "books"))):
        ran = place.run(output=output, sources=sources)
        for name, pieces in ran.by_source().items():
            wanted = ran.ledger["sources"][name]["tokens_in_plan"]
            opened = ran.folders.store(name)
            assert sum(length for _, _, length in pieces) == wanted
            assert all(start + length <= opened.length[d] and not opened.heldout[d] for d, start, length in pieces)
        assert AutoTokenizer.from_pretrained(str(ran.folders.tokenizer)).vocab_size <= 300


def test_short_synthetic_documents_are_not_cut_to_fill_gaps(place: Place) -> None:
    words = [w.replace("again.kind=repeat", "again.kind=passkey") for w in SYNTHETIC]
    words = [w.replace("again.weight=0.5", "again.weight=9.5") for w in words]
    assert_whole(place.run(*words, "data.seq_len=1024", "data.tokens=20000", sources=("books",)), "again")


def assert_whole(ran: Ran, name: str) -> None:
    """Each document once, in one piece."""
    wanted = [(i, 0, int(n)) for i, n in enumerate(ran.folders.store(name).length)]
    assert sorted(ran.by_source()[name]) == wanted


def test_synthetic_sources_stay_whole(place: Place) -> None:
    ran = place.run(*SYNTHETIC, sources=("books",))
    assert ran.ledger["sources"]["again"]["documents"] > 5
    assert_whole(ran, "again")


def test_pass_keys_stay_whole_and_can_be_read(place: Place) -> None:
    from transformers import AutoTokenizer

    words = [w.replace("again.kind=repeat", "again.kind=passkey") for w in SYNTHETIC]
    ran = place.run(*words, "data.seq_len=1024", "data.tokens=40000", sources=("books",))
    tokenizer, opened = AutoTokenizer.from_pretrained(str(ran.folders.tokenizer)), ran.folders.store("again")
    for index in range(len(opened.length)):
        text = tokenizer.decode(opened.document(index))
        key = re.search(r"What is the pass key\? The pass key is (\d{5})$", text)
        assert key and text.count(key[1]) >= 3
    assert_whole(ran, "again")


def test_synthetic_text_comes_from_training_documents_only(place: Place) -> None:
    name = next(f"{i}.txt" for i in range(1000) if store.is_heldout(f"{i}.txt", 0.2))
    (place.folder / "books" / name).write_text("Q" * 3000)
    ran = place.run(*SYNTHETIC, "data.tokens=20000", sources=("books",))
    books, again = ran.folders.store("books"), ran.folders.store("again")
    secret = set(books.document(books.ids.index(name)).tolist())
    shared = {t for i in np.flatnonzero(~books.heldout) for t in books.document(int(i)).tolist()}
    assert secret - shared
    assert not (secret - shared) & {t for i in range(len(again.length)) for t in again.document(i).tolist()}


def test_weights_are_kept_to_within_a_sequence(place: Place) -> None:
    words = ("data.sources.books.weight=0.75", "data.sources.notes.weight=0.25", "data.tokens=3000")
    ran = place.run(*words)
    taken = {name: row["tokens_in_plan"] for name, row in ran.ledger["sources"].items()}
    assert taken == {"books": 2250, "notes": 750}


def test_corpus_smaller_than_one_sequence_is_refused_with_the_numbers(place: Place) -> None:
    with pytest.raises(DataError) as said:
        place.run("data.seq_len=100000")
    opened = [store.load(p) for p in (place.folder / "cache" / "tokens").iterdir() if p.is_dir()]
    have = sum(int(s.length[~s.heldout].sum()) for s in opened)
    assert f"data.seq_len is 100000; the sources give {have} training tokens" in str(said.value)


def test_source_without_a_readable_document_is_refused_with_the_reasons(place: Place) -> None:
    (place.folder / "empty").mkdir()
    (place.folder / "empty" / "a.txt").write_text(" ")
    with pytest.raises(DataError, match=r"data\.sources\.empty\.path .* no document could be read \(empty: 1\)"):
        place.run(sources=("books", "empty"))


def test_folder_without_files_is_refused(place: Place) -> None:
    (place.folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"data\.sources\.empty\.path .* it holds no file"):
        place.run(sources=("books", "empty"))


def test_filler_that_is_all_held_out_is_refused(place: Place) -> None:
    (place.folder / "one").mkdir()
    name = next(f"{i}.txt" for i in range(1000) if store.is_heldout(f"{i}.txt", 0.2))
    (place.folder / "one" / name).write_text("rope " * 200)
    words = [w.replace("books", "one") for w in SYNTHETIC]
    with pytest.raises(DataError, match=r"data\.sources\.one"):
        place.run(*words, "data.tokens=1000", sources=("one",))


def test_no_user_path_is_written_into_any_artifact(place: Place) -> None:
    place.run(*SYNTHETIC, sources=("books",))
    for path in [*(place.folder / "cache").rglob("*"), *(place.folder / "out").rglob("*")]:
        assert path.is_dir() or str(place.folder).encode() not in path.read_bytes(), path.name


def test_near_pass_keys_leave_room_for_the_task_in_a_small_vocabulary(place: Place) -> None:
    """300 words spell the task in more than a hundred tokens; near keys must still leave room for it."""
    words = [w.replace("again.kind=repeat", "again.kind=passkey") for w in SYNTHETIC]
    ran = place.run(*words, "data.seq_len=256", "data.tokens=40000", sources=("books",))
    assert ran.ledger["sources"]["again"]["documents"] > 50
    assert_whole(ran, "again")


MARKED = ('data.begin="<|pad|>"', "data.end=eos")  # ids 1 and 0 of a tokenizer trained here


@pytest.mark.parametrize("packer", ["window_fill", "best_fit", "concat", "single"])
def test_every_packer_keeps_every_token_and_its_ledger_adds_up(place: Place, packer: str) -> None:
    ran = place.run(f"data.packer={packer}", *MARKED, "data.sources.notes.piece_len=40")
    told = ran.ledger["plan"]
    assert (told["packer"], told["overlong"], told["begin"], told["end"]) == (packer, "split", 1, 0)
    documents = 0
    for name, pieces in ran.by_source().items():
        opened, row = ran.folders.store(name), ran.ledger["sources"][name]
        seen = Counter((d, t) for d, start, length in pieces for t in range(start, start + length))
        train = np.flatnonzero(~opened.heldout).tolist()
        assert seen == Counter((d, t) for d in train for t in range(int(opened.length[d]) + 2))
        assert row["tokens_in_plan"] == int(opened.length[train].sum())
        assert (row["marks"], row["cut"], row["dropped"]) == (2 * len(train), 0, 0)
        assert max(length for _, _, length in pieces) <= (40 if name == "notes" else 64)
        documents += len(train)
    assert told["marks"] == 2 * documents
    assert told["tokens"] == sum(s["tokens_in_plan"] for s in ran.ledger["sources"].values())
    assert told["tokens"] + told["marks"] + told["padding"] == 64 * told["sequences"]


def test_sequences_hold_each_document_between_its_marks(place: Place) -> None:
    """Read back from the rows, without the plan: what stands between a begin and the next end is a document's text."""
    from transformers import AutoTokenizer

    ran = place.run("data.packer=best_fit", *MARKED, "data.seq_len=1024")
    tokenizer, sequences = AutoTokenizer.from_pretrained(str(ran.folders.tokenizer)), ran.folders.sequences()
    found = []
    for row in (sequences[n] for n in range(len(sequences))):
        for low, high in zip(row.cu_seqlens, row.cu_seqlens[1:], strict=False):
            ids = row.input_ids[low:high].tolist()
            if any(ids):  # else padding
                assert (ids[0], ids[-1]) == (1, 0) and not {0, 1} & set(ids[1:-1])
                assert row.labels[low:high].tolist() == [*ids[1:], -100]
                found.append(tokenizer.decode(ids[1:-1]))
    paths = [p for s in ("books", "notes") for p in (place.folder / s).iterdir() if not store.is_heldout(p.name, 0.2)]
    assert sorted(found) == sorted(p.read_text() for p in paths)


@pytest.mark.parametrize("policy", ["truncate", "drop"])
def test_what_is_too_long_is_counted_by_source(place: Place, policy: str) -> None:
    ran = place.run(f"data.overlong={policy}", "data.packer=best_fit")
    for name, pieces in ran.by_source().items():
        opened, row = ran.folders.store(name), ran.ledger["sources"][name]
        train = opened.length[~opened.heldout]
        cut = int(np.maximum(train - 64, 0).sum()) if policy == "truncate" else 0
        dropped = train[train > 64] if policy == "drop" else train[:0]
        assert (row["cut"], row["dropped"], row["dropped_documents"]) == (cut, int(dropped.sum()), len(dropped))
        assert all(start == 0 for _, start, _ in pieces)
        assert row["tokens_in_plan"] == int(train.sum()) - cut - int(dropped.sum())
    assert sum(s["cut"] + s["dropped"] for s in ran.ledger["sources"].values()) > 100


def test_what_is_dropped_does_not_shift_the_mixture(place: Place) -> None:
    words = ("data.sources.books.weight=0.75", "data.sources.notes.weight=0.25", "data.tokens=3000")
    ran = place.run(*words, "data.overlong=drop")
    assert {n: row["tokens_in_plan"] for n, row in ran.ledger["sources"].items()} == {"books": 2250, "notes": 750}
    assert ran.ledger["sources"]["books"]["dropped"] > 0


def test_too_long_a_document_is_refused_but_not_in_a_source_that_gives_nothing(place: Place) -> None:
    with pytest.raises(DataError, match=r"^data\.overlong is error; document \d\d\.txt of source books has \d+ tokens"):
        place.run("data.overlong=error")
    words = [w.replace("books.weight=0.5", "books.weight=0") for w in SYNTHETIC]
    ran = place.run("data.overlong=error", *words, "data.tokens=2000", sources=("books",))
    assert ran.ledger["sources"]["again"]["tokens_in_plan"] >= 2000


def test_synthetic_documents_leave_room_for_their_marks(place: Place) -> None:
    ran = place.run(*SYNTHETIC, *MARKED, "data.sources.again.piece_len=50", "data.packer=single", sources=("books",))
    opened = ran.folders.store("again")
    assert set(opened.length.tolist()) == {48}
    assert sorted(ran.by_source()["again"]) == [(i, 0, 50) for i in range(len(opened.length))]


@pytest.mark.parametrize(("word", "said"), [('"<s>"', "<s>"), ("bos", "bos")])
def test_mark_that_the_tokenizer_lacks_is_refused_before_a_token_is_written(place: Place, word: str, said: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^data\.begin is {said}; it must be one token of .* <\|endoftext\|>, or unset"
    ):
        place.run(f"data.begin={word}")
    assert not list((place.folder / "cache").rglob("tokens.bin"))


def test_choices_share_one_token_store_and_have_plans_of_their_own(place: Place) -> None:
    words = ["data.packer=concat", "data.overlong=drop", "data.end=eos", "data.sources.notes.piece_len=40"]
    made = [place.run(output="o"), *(place.run(word, output=f"o{n}") for n, word in enumerate(words))]
    assert len({str(ran.folders.stores) for ran in made}) == 1
    assert len({ran.folders.plan for ran in made}) == 5


def test_a_choice_left_at_its_default_does_not_rename_the_plan(place: Place) -> None:
    """Plans that were made before there was a choice are found again."""
    choices = {"packer", "overlong", "piece_len", "begin", "end"}
    plain, chosen = place.run(), place.run("data.packer=concat", "data.end=eos", output="chosen")
    made = [set(manifest.read(ran.folders.plan).content) & choices for ran in (plain, chosen)]  # type: ignore[union-attr]
    assert made == [set(), {"packer", "end"}]


def test_skipped_positions_are_the_readers_and_no_part_of_the_plan(place: Place) -> None:
    plain = place.run(output="plain")
    ran = place.run("data.pose.target_length=512", output="skips")
    again = place.run("data.pose.target_length=512", "data.pose.chunks=3", output="skips")
    assert ran.folders.plan == plain.folders.plan == again.folders.plan
    assert "redone: pose.chunks was 2, is 3" in again.said
    found, before = ran.folders.sequences(), plain.folders.sequences()
    highest = max(int(found.read(n, epoch).position_ids.max()) for n in range(len(found)) for epoch in range(5))
    assert 400 < highest < 512
    assert all(found[n].input_ids.tolist() == before[n].input_ids.tolist() for n in range(len(found)))


def test_summary_tells_what_was_dropped_and_marked(place: Place) -> None:
    ran = place.run("data.overlong=drop", "data.packer=best_fit", "data.end=eos")
    books, told = ran.ledger["sources"]["books"], summary(ran.ledger).splitlines()
    at = next(n for n, line in enumerate(told) if line.startswith("tokens not in the plan"))
    assert re.split(r"  +", told[at])[2] == "overlong"
    assert re.split(r"  +", told[at + 1])[::2] == ["books", f"{books['dropped']:,}"]
    assert any("packed by best_fit" in line for line in told)
    assert f"  beside them {ran.ledger['plan']['marks']} tokens before and after documents" in told


REPEATED = ("data.sources.books.weight=0.9", "data.sources.notes.weight=0.1", "data.tokens=6000")
KEPT = (
    (),
    MARKED,
    REPEATED,
    (*REPEATED, *MARKED, "data.packer=concat"),
    ("data.overlong=drop",),
    ("data.overlong=truncate", *MARKED),
    ("data.sources.books.weight=1", "data.sources.notes.weight=0", "data.document_mask=false"),
)


@pytest.mark.parametrize("words", KEPT)
def test_the_ledgers_entries_are_a_recount_of_the_plan(place: Place, words: tuple[str, ...]) -> None:
    """Token by token over the pieces, and against what the mixture said of itself before it was packed."""
    ran = place.run(*words)
    marked = "data.end=eos" in words
    for name, pieces in ran.by_source().items():
        opened, row = ran.folders.store(name), ran.ledger["sources"][name]
        tokens = Counter((d, t - marked) for d, start, length in pieces for t in range(start, start + length))
        tokens = Counter({(d, t): n for (d, t), n in tokens.items() if 0 <= t < opened.length[d]})
        assert tokens.total() == row["tokens_in_plan"] == sum(b["plan_tokens"] for b in row["by_length"].values())
        assert (row["distinct"], row["repeated"]) == (len(tokens), tokens.total() - len(tokens))
        assert row["plan_documents"] == len({d for d, _ in tokens})
        assert row["most_taken"] == max(tokens.values(), default=0)
        assert row["tokens"] == row["distinct"] + sum(r["tokens"] for r in row["left_out"].values())
        assert row["documents"] == row["plan_documents"] + sum(
            counts["documents"] for reason, counts in row["left_out"].items() if reason != "cut"
        )
        assert all(n >= 0 for counts in row["left_out"].values() for n in counts.values())
        taken = sum(b["taken_tokens"] for b in row["by_length"].values())
        assert taken - row["tokens_in_plan"] == row["cut"]
        largest = Counter(d for d, _ in tokens.elements()).most_common(1)
        assert (row["largest"] or {}).get("tokens") == (largest[0][1] if largest else None)


def test_a_plan_that_does_not_hold_what_was_taken_is_refused(place: Place) -> None:
    """A file of the plan in the cache that is not what its manifest says."""
    ran = place.run()
    path = ran.folders.plan / "plan.arrow"
    schema = pa.ipc.open_file(path.read_bytes()).schema
    document = int(np.flatnonzero(~ran.folders.store("books").heldout)[0])
    table = pa.table({"pieces": [[{"document": document, "start": 0, "length": 5}]]}, schema=schema)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table)
    with pytest.raises(
        ProofError, match=r"^the plan holds 5 tokens of source books; it must hold the \d+ that the mixture took; "
    ):
        place.run(output="again")


def test_a_plan_that_repeats_a_document_more_often_than_was_taken_is_refused() -> None:
    """The tokens add up all the same: another document's are missing."""
    row = {"distinct": 10, "repeated": 20, "tokens_in_plan": 30, "most_taken": 3, "repeats": 2}
    with pytest.raises(ProofError, match=r"^the plan holds 3 takings of one document of source a; it must hold the 2 "):
        prove("a", row)
    prove("a", row | {"repeats": 3})


def test_left_out_says_why(place: Place) -> None:
    held = store.is_heldout
    ran = place.run("data.overlong=drop", "data.sources.books.weight=1", "data.sources.notes.weight=0")
    books, notes = ran.ledger["sources"]["books"]["left_out"], ran.ledger["sources"]["notes"]["left_out"]
    assert set(books) == {"held_out", "overlong"} and set(notes) == {"held_out", "not_drawn"}
    assert notes["not_drawn"]["documents"] == sum(not held(f"{i:02}.txt", 0.2) for i in range(20))


def chats(place: Place, count: int, words: int) -> None:
    rng = random.Random(1)
    lines = [json.dumps({"text": " ".join(rng.choices(WORDS, k=words))}) for _ in range(count)]
    (place.folder / "chats").mkdir()
    (place.folder / "chats" / "all.jsonl").write_text("\n".join(lines))


def test_short_chats_packed_to_128k_are_exposed(place: Place) -> None:
    """The plan is full and every sequence 131,072 tokens long, and yet nothing in it is far from anything it belongs to."""
    chats(place, 2400, 100)
    ran = place.run("data.seq_len=131072", sources=("chats",))
    plan = ran.ledger["plan"]
    assert plan["sequences"] >= 2 and plan["own_context_share"]["32768"] == 0
    assert plan["longest_own_context"] == max(p["length"] for row in ran.pieces() for p in row) - 1 < 1000
    said = (
        "data.seq_len is 131072; no token of the plan has more than 32,768 tokens of its own document before it (the most is "
        f"{plan['longest_own_context']}); the model is trained at the length but never at the distance; add longer documents"
    )
    assert any(line.startswith(said) for line in ran.ledger["warnings"])
    assert "WARNING data.seq_len is 131072; no token of the plan has more than 32,768" in summary(ran.ledger)


def test_long_documents_are_not_warned_of(place: Place) -> None:
    chats(place, 8, 12000)
    ran = place.run("data.seq_len=4096", sources=("chats",))
    assert ran.ledger["plan"]["own_context_share"]["1024"] > 0.5
    assert not any(line.startswith("data.seq_len") for line in ran.ledger["warnings"])


def test_pages_show_the_documents_between_their_marks(place: Place) -> None:
    ran = place.run("data.packer=single", "data.end=eos", "data.seq_len=1024", 'data.begin="<|pad|>"')
    told = pages(ran.folders, 3, 0)
    assert told == pages(ran.folders, 3, 0) != pages(ran.folders, 3, 1)
    shown = re.split(r"(?m)^sequence ", told)[1:]
    assert len(shown) == 3
    for text in shown:
        head = text.splitlines()[1].strip()
        name, document = head.split(",")[0].split(": ")
        body = "\n".join(line[6:] for line in text.splitlines() if line.startswith("    | "))
        assert body.startswith("<|pad|>") and body.endswith("<|endoftext|>")
        beginning = body.removeprefix("<|pad|>").removesuffix("<|endoftext|>").split("\n[... ")[0]
        assert beginning and (place.folder / name / document).read_text().startswith(beginning)
        assert "padding" in text


def test_more_than_there_are_shows_all(place: Place) -> None:
    ran = place.run()
    told, there = pages(ran.folders, 10_000, 0), len(ran.folders.sequences())
    assert sorted(int(part.split()[0]) for part in re.split(r"(?m)^sequence ", told)[1:]) == list(range(there))


def planted(place: Place) -> None:
    """A copy and a near copy of a training document, and a training document that holds a held-out one."""
    held, *train = sorted(
        (p for p in (place.folder / "books").iterdir()),
        key=lambda p: (not store.is_heldout(p.name, 0.2), -p.stat().st_size),
    )
    train = [p for p in train if not store.is_heldout(p.name, 0.2)]
    text = train[0].read_text().split()
    names = [name for name in (f"x{i}.txt" for i in range(100)) if not store.is_heldout(name, 0.2)]
    texts = [" ".join(text), " ".join([*text[:-4], "new", "words"]), f"A preface. {held.read_text()}"]
    for name, written in zip(names, texts, strict=False):
        (place.folder / "notes" / name).write_text(written)


CLEAN = ("data.duplicates.exact=remove", "data.duplicates.near=remove", "data.contamination.action=remove")


def test_copies_and_held_out_text_leave_the_plan_on_request_and_are_counted(place: Place) -> None:
    planted(place)
    found, told = place.run().ledger, place.run(*CLEAN, output="clean")
    before, after = found["sources"]["notes"], told.ledger["sources"]["notes"]
    assert (before["duplicates"]["exact_documents"], before["duplicates"]["near_documents"]) == (1, None)
    assert before["removed"] == {} and found["contamination"]["heldout"]["dirty"]
    assert {r: k["documents"] for r, k in after["removed"].items()} == {
        "exact duplicate": 1,
        "near duplicate": 1,
        "held-out text": 1,
    }
    left = sum(k["tokens"] for k in after["removed"].values())
    assert after["tokens_in_plan"] == before["tokens_in_plan"] - left
    gone = {
        told.folders.store("notes").ids.index(f"x{i}.txt")
        for i in range(9)
        if (place.folder / "notes" / f"x{i}.txt").exists()
    }
    assert len(gone) == 3 and not gone & {d for d, _, _ in told.by_source()["notes"]}
    assert told.ledger["contamination"]["heldout"]["dirty"] == []


def test_a_plan_is_renamed_by_what_is_removed_and_by_nothing_else(place: Place) -> None:
    plain = place.run().folders.plan
    assert place.run(*CLEAN, output="nothing").folders.plan == plain
    planted(place)
    plain = place.run(output="planted").folders.plan
    looked = [
        place.run(f"data.{words}", output="o").folders.plan
        for words in ("duplicates.near=report", "contamination.action=off")
    ]
    assert looked == [plain, plain]
    removed = [place.run(word, output="r").folders.plan for word in (CLEAN[0], CLEAN[2])]
    assert len({plain, *removed}) == 3


def test_what_is_looked_for_renews_the_ledger_and_redoes_nothing(place: Place) -> None:
    before = place.run()
    after = place.run("data.contamination.action=off", "data.duplicates.near=report")
    assert after.said.endswith("skipped")
    assert before.ledger["contamination"]["action"] == "report"
    assert after.ledger["contamination"] == {"action": "off"}
    assert after.ledger["sources"]["books"]["duplicates"]["near_documents"] is not None


def test_synthetic_text_is_free_of_removed_documents(place: Place) -> None:
    held = next(p for p in (place.folder / "books").iterdir() if store.is_heldout(p.name, 0.2))
    name = next(f"y{i}.txt" for i in range(100) if not store.is_heldout(f"y{i}.txt", 0.2))
    held.write_text("Q " * 300)
    (place.folder / "books" / name).write_text("Q " * 300)
    dirty = place.run(*SYNTHETIC, "data.tokens=20000", sources=("books",))
    clean = place.run(*SYNTHETIC, "data.tokens=20000", CLEAN[2], sources=("books",), output="clean")
    copied = set(clean.folders.store("books").document(clean.folders.store("books").ids.index(name)).tolist())
    rest = clean.folders.store("books")
    others = {t for i in np.flatnonzero(~rest.heldout) if rest.ids[i] != name for t in rest.document(int(i)).tolist()}
    assert copied - others
    made = {
        ran.folders.plan: {t for i in range(len(again.ids)) for t in again.document(i).tolist()}
        for ran in (dirty, clean)
        for again in [ran.folders.store("again")]
    }
    assert (copied - others) & made[dirty.folders.plan]
    assert not (copied - others) & made[clean.folders.plan]


def test_summary_tells_what_was_found_and_what_was_not_looked_for(place: Place) -> None:
    planted(place)
    told = summary(place.run().ledger)
    told = " ".join(told.split())
    assert re.search(r"notes: duplicates of earlier documents 1 exact \(\d+ tokens\); near ones not looked for", told)
    assert re.search(
        r"held-out text in training text: 1 of \d+ held-out documents have more than 20% of their stretches of 32 tokens",
        told,
    )
    clean = place.run(*CLEAN, output="clean").ledger
    assert "not looked for" not in summary(clean)
    left = clean["sources"]["notes"]["left_out"]
    for reason in ("exact duplicate", "near duplicate", "held-out text"):
        assert left[reason]["documents"] == 1 and f"{left[reason]['tokens']:,}" in summary(clean)
    off = summary(place.run("data.contamination.action=off", output="off").ledger)
    assert "held-out text in training text: not looked for" in off


def rows(place: Place, *rows: dict[str, Any]) -> None:
    (place.folder / "books").rename(place.folder / "old")
    (place.folder / "books").mkdir()
    (place.folder / "books" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_by_template_and_id_reach_the_store_and_what_lacks_a_column_the_ledger(place: Place) -> None:
    from transformers import AutoTokenizer

    made = [{"title": f"Yarn {i}", "body": "rope " * 30, "key": f"b{i}"} for i in range(20)]
    rows(
        place,
        *made,
        {"title": "x", "key": "no body"},
        {"title": "x", "body": 3, "key": "n"},
        {"title": "a\0", "body": "b"},
    )
    words = ("data.sources.books.template={title}: {body}", "data.sources.books.id_key=key")
    ran = place.run(*words, sources=("books",))
    opened = ran.folders.store("books")
    tokenizer = AutoTokenizer.from_pretrained(str(ran.folders.tokenizer))
    texts = {opened.ids[i]: tokenizer.decode(opened.document(i)) for i in range(len(opened.length))}
    assert texts == {row["key"]: f"{row['title']}: {row['body']}" for row in made}
    assert ran.ledger["sources"]["books"]["refused"] == {"body is not text": 1, "no body": 1, "no key": 1}


def test_a_choice_of_reading_makes_a_store_and_a_tokenizer_of_its_own(place: Place) -> None:
    rows(place, *({"text": f"rope {i} " * 30, "body": f"walk {i} " * 30, "key": i} for i in range(20)))
    words = [[], ["text_key=body"], ["template={text}{body}"], ["id_key=key"]]
    made = [
        place.run(*(f"data.sources.books.{w}" for w in word), sources=("books",), output=f"o{n}")
        for n, word in enumerate(words)
    ]
    assert len({str(ran.folders.stores) for ran in made}) == 4
    assert len(list((place.folder / "cache" / "tokenizers").glob("*/manifest.json"))) == 4


def test_pages_behind_a_url_are_trained_on_as_text(place: Place) -> None:
    import fsspec

    for i in range(20):
        page = f"<title>x</title><script>zzz</script><p>{'rope ' * 40}</p><p>walk {i}"
        fsspec.filesystem("memory").pipe(f"/pages/{i}.html", page.encode())
    ran = place.run("data.sources.books.path=memory://pages", sources=("books",))
    assert ran.ledger["sources"]["books"]["documents"] == 20
    assert ran.ledger["sources"]["books"]["refused"] == {}


def taken_of(ran: Ran, name: str) -> Counter[int]:
    """Documents of a source by the tokens that the plan holds of each."""
    found: Counter[int] = Counter()
    for document, _, length in ran.by_source()[name]:
        found[document] += length
    return found


def test_short_documents_come_seldom_and_the_sources_keep_their_ratio(place: Place) -> None:
    ran = place.run('data.length_weights={"<50": 0.1}', "data.sources.notes.length_weights={}", "data.tokens=2000")
    opened = {name: ran.folders.store(name) for name in ("books", "notes")}
    train = {name: int(s.length[~s.heldout].sum()) for name, s in opened.items()}
    rows = ran.ledger["sources"]
    assert sum(row["tokens_in_plan"] for row in rows.values()) == 2000
    assert abs(rows["books"]["tokens_in_plan"] - 2000 * train["books"] / sum(train.values())) < 1
    books, taken = opened["books"], taken_of(ran, "books")
    times = {d: taken[d] / int(books.length[d]) for d in np.flatnonzero(~books.heldout).tolist()}
    short, long = ([t for d, t in times.items() if (books.length[d] < 50) == s] for s in (True, False))
    assert len(short) > 3 and sum(short) / len(short) < 0.4 * sum(long) / len(long)
    assert np.ceil(max(times.values())) == rows["books"]["repeats"]


def test_plan_of_ranges_is_named_by_what_they_mean(place: Place) -> None:
    """Another spelling is the same plan; the weights of a source win over those of all; unset ones rename nothing."""
    plain = place.run(output="p").folders.plan
    fu = place.run('data.length_weights={"<4K": 0.5}', output="a").folders.plan
    spelled = place.run('data.length_weights={"<4096": 0.5}', output="b").folders.plan
    own = [f'data.sources.{name}.length_weights={{"<4k": 0.5}}' for name in ("books", "notes")]
    by_source = place.run(*own, 'data.length_weights={"<8": 7}', output="c").folders.plan
    off = [f"data.sources.{name}.length_weights={{}}" for name in ("books", "notes")]
    assert fu == spelled == by_source != plain
    assert place.run(*off, 'data.length_weights={"<8": 7}', output="d").folders.plan == plain
    words = ("data.sources.books.min_len=20", "data.sources.books.max_len=90", 'data.buckets={"<20": 1, ">=20": 2}')
    others = [
        place.run("data.tokens=900", "data.max_epochs=100", *word, output=f"e{n}").folders.plan
        for n, word in enumerate([(), *zip(words, strict=True)])
    ]
    assert len(set(others)) == 4
    assert place.run("data.max_epochs=7", output="f").folders.plan == plain


def test_documents_outside_min_len_and_max_len_are_left_out_and_counted(place: Place) -> None:
    ran = place.run("data.sources.books.min_len=100", "data.sources.books.max_len=300")
    opened, row = ran.folders.store("books"), ran.ledger["sources"]["books"]
    train = np.flatnonzero(~opened.heldout).tolist()
    inside = [d for d in train if 100 <= opened.length[d] <= 300]
    assert 0 < len(inside) < len(train)
    assert taken_of(ran, "books") == Counter({d: int(opened.length[d]) for d in inside})
    out = [int(opened.length[d]) for d in train if d not in inside]
    assert (row["outside_length"], row["outside_length_documents"]) == (sum(out), len(out))
    assert row["left_out"]["outside_length"] == {"documents": len(out), "tokens": sum(out)}
    assert re.search(rf"tokens not in the plan .*outside length\nbooks .* {sum(out):,}", summary(ran.ledger))


def test_length_counts_begin_and_end(place: Place) -> None:
    shortest = int(min(place.run().folders.store("notes").length))
    for words, least in ((), shortest), (MARKED, shortest + 2):
        ran = place.run(*words, f"data.sources.notes.min_len={least}", output=f"o{least}")
        assert ran.ledger["sources"]["notes"]["outside_length"] == 0


def test_buckets_share_each_sources_tokens_and_what_lacks_is_told(place: Place) -> None:
    """Notes have no document of 200 tokens: its long share is filled by its short ones."""
    (place.folder / "books" / "long.txt").write_text("rope walk " * 400)
    ran = place.run('data.buckets={"<200": 0.7, ">=200": 0.3}', "data.tokens=3000")
    opened = ran.folders.store("books")
    taken = taken_of(ran, "books")
    row = ran.ledger["sources"]["books"]
    long = sum(n for d, n in taken.items() if opened.length[d] >= 200)
    assert row["buckets"][">=200"]["taken"] == row["buckets"][">=200"]["asked"] == long
    assert abs(long - 0.3 * row["tokens_in_plan"]) < 1
    notes = ran.ledger["sources"]["notes"]["buckets"]
    assert int(ran.folders.store("notes").length.max()) < 200
    assert notes[">=200"]["taken"] == 0 and notes["<200"]["taken"] == ran.ledger["sources"]["notes"]["tokens_in_plan"]
    said = f"notes: tokens of lengths that it has no document of were taken from <200: {notes['>=200']['asked']:,} of >=200"
    assert said in " ".join(summary(ran.ledger).split())


def test_bucket_without_a_document_is_refused_before_a_plan(place: Place) -> None:
    with pytest.raises(DataError, match=r"^data\.buckets >=1M is 0\.5; a bucket must hold a training document"):
        place.run('data.buckets={"<1M": 0.5, ">=1M": 0.5}')
    assert not list((place.folder / "cache").rglob("plan.arrow"))


def test_repeats_beyond_the_cap_are_refused_also_when_the_plan_is_there(place: Place) -> None:
    said = r"^data\.max_epochs is 4; .* of books one would be taken \d+ times \(\d+\.\d\d epochs of all"
    with pytest.raises(DataError, match=said):
        place.run("data.tokens=60000", "data.max_epochs=4")
    assert not list((place.folder / "cache").rglob("plan.arrow"))
    rows = place.run("data.tokens=60000", "data.max_epochs=1000").ledger["sources"]
    assert rows["books"]["repeats"] == int(np.ceil(rows["books"]["epochs"]))
    with pytest.raises(DataError, match=said):
        place.run("data.tokens=60000", "data.max_epochs=4", output="again")


def test_repeats_by_length_are_capped_too(place: Place) -> None:
    with pytest.raises(DataError, match=r"^data\.max_epochs is 4; .* would be taken 6 times"):
        place.run('data.length_weights={">=1": 6}', "data.max_epochs=4")
    assert not list((place.folder / "cache").rglob("plan.arrow"))


def test_made_up_documents_are_taken_once_whatever_the_lengths_say(place: Place) -> None:
    words = ('data.length_weights={"<1M": 0.5}', 'data.buckets={"<200": 1, ">=200": 1}')
    (place.folder / "books" / "long.txt").write_text("rope walk " * 400)
    ran = place.run(*SYNTHETIC, *words, sources=("books",))
    assert_whole(ran, "again")
    assert ran.ledger["sources"]["again"]["repeats"] == 1


def test_numbers_by_length_may_find_made_up_documents_alone(place: Place) -> None:
    words = [w.replace("books.weight=0.5", "books.weight=0") for w in SYNTHETIC]
    ran = place.run(*words, 'data.buckets={"<1K": 1, ">=1K": 1}', "data.tokens=2000", sources=("books",))
    assert ran.ledger["sources"]["books"]["tokens_in_plan"] == 0
    assert_whole(ran, "again")


def test_ledger_counts_documents_by_length_before_and_after(place: Place) -> None:
    ran = place.run("data.sources.notes.weight=0", "data.sources.books.weight=1", "data.tokens=9000")
    row, idle = (ran.ledger["sources"][name] for name in ("books", "notes"))
    opened = ran.folders.store("books")
    train, taken = opened.length[~opened.heldout], taken_of(ran, "books")
    short = row["by_length"]["1-256"]
    assert short["documents"] - short["heldout_documents"] == int((train <= 256).sum())
    assert short["plan_tokens"] == sum(n for d, n in taken.items() if opened.length[d] <= 256)
    columns = {key: sum(b[key] for b in row["by_length"].values()) for key in short}
    assert columns["tokens"] - columns["heldout_tokens"] == int(train.sum())
    assert columns["plan_tokens"] == row["tokens_in_plan"] == 9000
    assert columns["taken_documents"] == sum(start == 0 for _, start, _ in ran.by_source()["books"])
    assert (idle["repeats"], idle["most_taken"]) == (0, 0)
    assert all(b["taken_documents"] == b["plan_tokens"] == 0 for b in idle["by_length"].values())


def test_what_is_asked_of_the_mixture_is_printed_and_else_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.run()
    assert "mixture" not in capsys.readouterr().out
    place.run("mixture=ultralong", "data.sources.notes.length_weights={}", "data.sources.books.max_len=9999")
    said = "mixture: ultralong; expected repeats <4K 0.1, >8K 2; expected repeats of notes all 1; books of 1 to 9,999 tokens; "
    assert said + "a document at most 20 times" in capsys.readouterr().out


def test_one_folder_at_two_lengths_of_piece(place: Place) -> None:
    """ProLong's 512K and 64K pieces, in small: no document in both, one token store, its held-out documents once."""
    path = f"path={place.folder / 'books'}"
    words = [f"data.sources.{name}.{word}" for name in ("long", "short") for word in (path, "weight=0.5")]
    words += ["data.sources.long.min_len=60", "data.sources.short.max_len=59", "data.sources.short.piece_len=32"]
    ran = place.run(*words, "data.seq_len=128", sources=())
    assert ran.folders.stores["long"] == ran.folders.stores["short"]
    parts = {name: taken_of(ran, name) for name in ("long", "short")}
    assert parts["long"] and parts["short"] and not set(parts["long"]) & set(parts["short"])
    assert max(length for _, _, length in ran.by_source()["short"]) <= 32
    assert max(length for _, _, length in ran.by_source()["long"]) > 32
    assert len(ran.folders.texts(place.config(*words, sources=()).data)) == 1


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' sources in several shards each."""
    _small(monkeypatch)


def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.shards, "SHARD_BYTES", 3000)
    monkeypatch.setattr("ropewalk.data.sources.units.UNIT_BYTES", 1000)


def test_tasks_then_a_merge_give_the_same_stores_and_plan(place: Place, small_shards: None) -> None:
    """Four tasks, the last one first; workers differ too."""
    words = (*SYNTHETIC, "data.sources.notes.weight=0.2")
    whole = place.run("data.workers=1", *words, cache="whole", output="whole_out")
    config, inputs = place.config("data.workers=3", *words), stage.Inputs(None)
    missing = stage.missing_shards(config, inputs)
    made = [shard for task in (3, 0, 2, 1) for shard in stage.make_shards(config, inputs, task, 4)]
    assert sorted(f"{name}/{number:05}" for name, number in made) == sorted(missing)
    assert len(set(made)) == len(made) > 4 and {name for name, _ in made} == {"books", "notes"}
    assert stage.missing_shards(config, inputs) == [] and not list((place.folder / "cache" / "plans").glob("*"))
    assert place.run(*words).ledger == whole.ledger
    assert content_of(place.folder / "cache") == content_of(place.folder / "whole")


def test_shards_are_shared_out_over_all_sources(place: Place) -> None:
    """Counted through the sources: two of one shard each go to two tasks, a third has nothing to do."""
    config, inputs = place.config(), stage.Inputs(None)
    assert [stage.make_shards(config, inputs, task, 3) for task in range(3)] == [[("books", 0)], [("notes", 0)], []]


def test_number_of_shards_changes_no_document(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    one = place.run(cache="one", output="one")
    _small(monkeypatch)
    many = place.run(cache="many", output="many")
    assert one.pieces() == many.pieces()
    for a, b in ((one.folders.sequences(), many.folders.sequences()),):
        assert all((a[n].input_ids == b[n].input_ids).all() for n in range(len(a)))
    assert len(many.folders.store("books").facts["shards"]) > 2


def test_workers_are_the_cores_unless_set(place: Place) -> None:
    import os

    assert stage.workers(place.config("data.workers=5").data) == 5
    assert stage.workers(place.config().data) == len(os.sched_getaffinity(0))
    with pytest.raises(ConfigError, match=r"^data\.workers is 0; it must be at least 1; unset it for the cores$"):
        place.config("data.workers=0")


def test_workers_redo_nothing(place: Place) -> None:
    place.run("data.workers=1")
    assert place.run("data.workers=2").said == "data: done before with the same settings and inputs; skipped"
