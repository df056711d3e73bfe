"""The ledger of the whole stage against counts over the plan, token by token."""

import json
import random
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from data_fixture import MARKED, WORDS, DataFixture, tokens_by_document

from ropewalk.conf.errors import ProofError
from ropewalk.data.ledger.entries import prove
from ropewalk.data.ledger.samples import pages
from ropewalk.data.ledger.terminal import summary
from ropewalk.data.tokens import store


def test_the_ledger_adds_up_and_equals_counts_over_the_plan(data_fixture: DataFixture) -> None:
    result = data_fixture.run()
    plan, sources = result.ledger["plan"], result.ledger["sources"]
    assert sum(s["tokens_in_plan"] for s in sources.values()) == plan["tokens"]
    assert sum(s["share_in_plan"] for s in sources.values()) == pytest.approx(1, abs=1e-5)
    assert sum(s["targets"] for s in sources.values()) == plan["targets"]
    for bound, share in plan["own_context_share"].items():
        beyond = sum(s["own_context_share"][bound] * s["targets"] for s in sources.values())
        assert share * plan["targets"] == pytest.approx(beyond, abs=0.02)  # six digits
    for name, pieces in result.by_source().items():
        assert sources[name]["tokens_in_plan"] == sum(length for _, _, length in pieces)
    rows = result.pieces()
    assert re.fullmatch("[0-9a-f]{16}", result.folders.plan.name)
    first = len(result.folders.store(next(iter(result.folders.stores))).length)
    in_row = [len({piece["document"] < first for piece in row}) for row in rows]
    assert plan["a_sequence"]["sources"] == pytest.approx(sum(in_row) / len(rows), abs=5e-4)
    assert (plan["sequences"], plan["pieces"]) == (len(rows), sum(map(len, rows)))
    assert plan["tokens"] == sum(p["length"] for row in rows for p in row)
    assert plan["tokens"] + plan["padding"] == 64 * len(rows)
    assert sum(plan["piece_lengths"].values()) == plan["pieces"]


def test_the_ledger_counts_the_files_on_disk(data_fixture: DataFixture) -> None:
    (data_fixture.folder / "notes" / "98.txt").write_bytes(b"caf\xe9")
    (data_fixture.folder / "notes" / "99.txt").write_text("  ")
    notes = data_fixture.run().ledger["sources"]["notes"]
    heldout = sum(store.is_heldout(f"{i:02}.txt", 0.2) for i in range(20))
    assert notes["refused"] == {"empty": 1, "not UTF-8": 1}
    assert (notes["documents"], notes["heldout_documents"]) == (20, heldout)
    assert (notes["epochs"], notes["cut"]) == (1.0, 0)


REPEATED = (
    "data.sources.books.weight=0.9",
    "data.sources.notes.weight=0.1",
    "data.total_tokens=6000",
)

PLANS = (  # overrides
    (),
    MARKED,
    REPEATED,
    (*REPEATED, *MARKED, "data.packer=concat"),
    ("data.overlong=drop",),
    ("data.overlong=truncate", *MARKED),
    ("data.sources.books.weight=1", "data.sources.notes.weight=0", "data.document_mask=false"),
)


@pytest.mark.parametrize("overrides", PLANS)
def test_the_ledgers_entries_equal_counts_over_the_plan(
    data_fixture: DataFixture, overrides: tuple[str, ...]
) -> None:
    """Counted token by token over the pieces, and compared with the mixture's own counts."""
    result = data_fixture.run(*overrides)
    begin_tokens = int("data.end=eos" in overrides)  # MARKED sets begin and end
    for name, pieces in result.by_source().items():
        lengths, row = result.folders.store(name).length, result.ledger["sources"][name]
        stored = [
            (d, t - begin_tokens) for d, start, size in pieces for t in range(start, start + size)
        ]
        tokens = Counter((d, t) for d, t in stored if 0 <= t < lengths[d])
        assert tokens.total() == row["tokens_in_plan"]
        assert tokens.total() == sum(b["plan_tokens"] for b in row["by_length"].values())
        assert (row["distinct"], row["repeated"]) == (len(tokens), tokens.total() - len(tokens))
        assert row["plan_documents"] == len({d for d, _ in tokens})
        assert row["most_taken"] == max(tokens.values(), default=0)
        assert row["tokens"] == row["distinct"] + sum(r["tokens"] for r in row["left_out"].values())
        assert row["documents"] == row["plan_documents"] + sum(
            counts["documents"] for reason, counts in row["left_out"].items() if reason != "cut"
        )
        assert all(n >= 0 for counts in row["left_out"].values() for n in counts.values())
        taken_tokens = sum(b["taken_tokens"] for b in row["by_length"].values())
        assert taken_tokens - row["tokens_in_plan"] == row["cut"]
        largest = Counter(d for d, _ in tokens.elements()).most_common(1)
        assert (row["largest"] or {}).get("tokens") == (largest[0][1] if largest else None)


def test_a_plan_that_was_replaced_in_the_cache_is_made_again(
    data_fixture: DataFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    result = data_fixture.run()
    path = result.folders.plan / "plan.arrow"
    made = path.read_bytes()
    schema = pa.ipc.open_file(path.read_bytes()).schema
    document = int(np.flatnonzero(~result.folders.store("books").heldout)[0])
    table = pa.table({"pieces": [[{"document": document, "start": 0, "length": 5}]]}, schema=schema)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table)
    data_fixture.run(output="again")
    assert path.read_bytes() == made
    assert "is damaged: plan.arrow is not what was written" in capsys.readouterr().out


def test_a_plan_that_repeats_a_document_more_often_than_the_mixture_is_refused() -> None:
    """The tokens still add up, because tokens of another document are missing."""
    row = {"distinct": 10, "repeated": 20, "tokens_in_plan": 30, "most_taken": 3, "repeats": 2}
    message = r"^the plan holds 3 takings of one document of source a; it must hold the 2 "
    with pytest.raises(ProofError, match=message):
        prove("a", row)
    prove("a", row | {"repeats": 3})


def test_left_out_gives_the_reasons(data_fixture: DataFixture) -> None:
    result = data_fixture.run(
        "data.overlong=drop", "data.sources.books.weight=1", "data.sources.notes.weight=0"
    )
    books, notes = (result.ledger["sources"][name]["left_out"] for name in ("books", "notes"))
    assert set(books) == {"held_out", "overlong"} and set(notes) == {"held_out", "not_drawn"}
    training = sum(not store.is_heldout(f"{i:02}.txt", 0.2) for i in range(20))
    assert notes["not_drawn"]["documents"] == training


def test_the_ledger_counts_documents_by_length_in_store_and_plan(data_fixture: DataFixture) -> None:
    result = data_fixture.run(
        "data.sources.notes.weight=0", "data.sources.books.weight=1", "data.total_tokens=9000"
    )
    row, unused = (result.ledger["sources"][name] for name in ("books", "notes"))
    books = result.folders.store("books")
    train, tokens = books.length[~books.heldout], tokens_by_document(result, "books")
    short = row["by_length"]["1-256"]
    assert short["documents"] - short["heldout_documents"] == int((train <= 256).sum())
    assert short["plan_tokens"] == sum(n for d, n in tokens.items() if books.length[d] <= 256)
    columns = {key: sum(b[key] for b in row["by_length"].values()) for key in short}
    assert columns["tokens"] - columns["heldout_tokens"] == int(train.sum())
    assert columns["plan_tokens"] == row["tokens_in_plan"] == 9000
    first_pieces = [start for _, start, _ in result.by_source()["books"] if start == 0]
    assert columns["taken_documents"] == len(first_pieces)
    assert (unused["repeats"], unused["most_taken"]) == (0, 0)
    assert all(b["taken_documents"] == b["plan_tokens"] == 0 for b in unused["by_length"].values())


def write_chats(data_fixture: DataFixture, count: int, length: int) -> None:
    """A source `chats` of `count` documents of `length` words."""
    rng = random.Random(1)
    lines = [json.dumps({"text": " ".join(rng.choices(WORDS, k=length))}) for _ in range(count)]
    (data_fixture.folder / "chats").mkdir()
    (data_fixture.folder / "chats" / "all.jsonl").write_text("\n".join(lines))


def test_short_documents_packed_to_128k_are_warned_of(data_fixture: DataFixture) -> None:
    """Sequences of 131,072 tokens are full, but no token has distant context of its document."""
    write_chats(data_fixture, 2400, 100)
    result = data_fixture.run("data.seq_len=131072", sources=("chats",))
    plan = result.ledger["plan"]
    assert plan["sequences"] >= 2 and plan["own_context_share"]["32768"] == 0
    longest = max(p["length"] for row in result.pieces() for p in row)
    assert plan["longest_own_context"] == longest - 1 < 1000
    message = "data.seq_len is 131072; no token of the plan has more than 32,768"
    warning = (
        f"{message} tokens of its own document before it (the most is {longest - 1}); the model is "
        "trained at the length but never at the distance; add longer documents"
    )
    assert any(line.startswith(warning) for line in result.ledger["warnings"])
    assert f"WARNING {message}" in summary(result.ledger)


def test_long_documents_are_not_warned_of(data_fixture: DataFixture) -> None:
    write_chats(data_fixture, 8, 12000)
    result = data_fixture.run("data.seq_len=4096", sources=("chats",))
    assert result.ledger["plan"]["own_context_share"]["1024"] > 0.5
    assert not any(line.startswith("data.seq_len") for line in result.ledger["warnings"])


def test_pages_show_documents_with_their_boundary_tokens(data_fixture: DataFixture) -> None:
    result = data_fixture.run(
        "data.packer=single", "data.end=eos", "data.seq_len=1024", "data.begin=<|pad|>"
    )
    page = pages(result.folders, 3, 0)
    assert page == pages(result.folders, 3, 0) != pages(result.folders, 3, 1)
    sequences = re.split(r"(?m)^sequence ", page)[1:]
    assert len(sequences) == 3
    for text in sequences:
        head = text.splitlines()[1].strip()
        name, document = head.split(",")[0].split(": ")
        body = "\n".join(line[6:] for line in text.splitlines() if line.startswith("    | "))
        assert body.startswith("<|pad|>") and body.endswith("<|endoftext|>")
        beginning = body.removeprefix("<|pad|>").removesuffix("<|endoftext|>").split("\n[... ")[0]
        file_text = (data_fixture.folder / name / document).read_text()
        assert beginning and file_text.startswith(beginning)
        assert "padding" in text


def test_pages_of_more_sequences_than_the_plan_has_show_all(data_fixture: DataFixture) -> None:
    result = data_fixture.run()
    sequences = re.split(r"(?m)^sequence ", pages(result.folders, 10_000, 0))[1:]
    numbers = sorted(int(text.split()[0]) for text in sequences)
    assert numbers == list(range(len(result.folders.sequences())))
